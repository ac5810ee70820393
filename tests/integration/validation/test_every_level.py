"""Each rule of names at each level of the tree, in both modes: what fires, and what comes close and doesn't."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from libs.run_tree.run_path import RunKind, RunPath
from services.sync_engine.validation import walk
from services.sync_engine.validation.content_scan import ContentScan
from services.sync_engine.validation.creation_mode import Proposal, check_proposal
from services.sync_engine.validation.finding import Finding, OffendingKind, Rule, Tier, in_order
from services.sync_engine.validation.remembered_walks import RememberedWalks
from services.sync_engine.validation.walk import AuditRules, RunAudit

RUN = RunPath("CONFOCAL_01", "Cortex", "Runs", "Run_2026-04-17T14-32")
FOLDER, FILE = OffendingKind.DIRECTORY_SEGMENT, OffendingKind.FILE_NAME

# By rule: a name that it fires on with what it matches, and names that come close.
NAMES: dict[Rule, tuple[str, str, tuple[str, ...]]] = {
    Rule.UNRESOLVED_PLACEHOLDER_TOKEN: ("x<operator>y", "<operator>", ("xoperatory", "x(operator)y")),
    Rule.LEFTOVER_JINJA_MARKER: ("x{{ operator }}y", "{{ operator }}", ("x{ operator }y", "x{%", "x{{y")),
    Rule.ILLEGAL_FILESYSTEM_CHARACTER: ("x:y", ":", ("x;y", "x.y", ".xy", " xy", "x'y", "größe")),
    Rule.RESERVED_FILESYSTEM_NAME: ("aux.tif", "aux", ("auxiliary.tif", "x.aux", "COM10", "LPT0", "nul_")),
}
PREFIXED = "Run_"


def _place(level: str, name: str) -> tuple[RunPath, str, str, OffendingKind]:
    """The run, a file in it, and what is wrong: its path and kind, with `name` at this level."""
    match level:
        case "project":
            return replace(RUN, project=name), "a.tif", f"CONFOCAL_01/{name}", FOLDER
        case "run":
            run = replace(RUN, leaf=PREFIXED + name)
            return run, "a.tif", str(run), FOLDER
        case "subfolder":
            return RUN, f"deep/{name}/a.tif", f"{RUN}/deep/{name}", FOLDER
        case _:
            return RUN, f"deep/er/{name}", f"{RUN}/deep/er/{name}", FILE


LEVELS = ("project", "run", "subfolder", "file")


def _on_disk(root: Path, run: RunPath, file: str) -> list[Finding]:
    path = root / str(run) / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    for folder, level in ((root / str(run), "run"), (root / run.equipment_id / run.project, "project")):
        (folder / ".exlab-wizard").mkdir(exist_ok=True)
        document = {"schema_version": "1.4", "level": level, "run_kind": run.kind_by_leaf.value}
        (folder / ".exlab-wizard" / "creation.json").write_text(json.dumps(document))
    walks = RememberedWalks(AuditRules(), root, may_remember=False)
    return in_order(f for audit in walks.scope(run.equipment_id) for f in audit.findings)


def _proposed(root: Path, run: RunPath, file: str) -> list[Finding]:
    return check_proposal(Proposal(str(run), run.kind_by_leaf, [file]), ContentScan())


MODES: dict[str, Callable[[Path, RunPath, str], list[Finding]]] = {"audit": _on_disk, "creation": _proposed}


# A run's prefix keeps its name from being reserved.
CAN_FIRE = [(r, where) for r in NAMES for where in LEVELS if (r, where) != (Rule.RESERVED_FILESYSTEM_NAME, "run")]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("rule", "level"), CAN_FIRE)
def test_a_rule_fires_at_each_level(tmp_path: Path, rule: Rule, level: str, mode: str) -> None:
    name, token, _ = NAMES[rule]
    run, file, where, kind = _place(level, name)
    found = [f for f in MODES[mode](tmp_path, run, file) if f.rule is rule]
    assert [(f.offending_path, f.offending_kind, f.matched_token) for f in found] == [(where, kind, token)]
    assert found[0].run_path == ("" if level == "project" else str(run))
    assert not found[0].override_active
    assert not found[0].synced_under_prior_policy


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("rule", NAMES)
def test_a_name_that_only_comes_close_is_none(tmp_path: Path, rule: Rule, level: str, mode: str) -> None:
    for number, name in enumerate(NAMES[rule][2]):
        run, file, _, _ = _place(level, name)
        root = tmp_path / str(number)
        root.mkdir()
        hard = [f for f in MODES[mode](root, run, file) if f.rule in NAMES]
        assert hard == [], name


def test_an_equipment_whose_id_is_reserved_is_found_in_both_modes(tmp_path: Path) -> None:
    run = replace(RUN, equipment_id="COM1")
    for check in MODES.values():
        found = [f for f in check(tmp_path, run, "a.tif") if f.rule is Rule.RESERVED_FILESYSTEM_NAME]
        assert [(f.offending_path, f.run_path) for f in found] == [("COM1", "")]


def test_what_lies_beside_runs_is_looked_at_too(tmp_path: Path) -> None:
    assert _on_disk(tmp_path, RUN, "a.tif") == []
    group = tmp_path / "CONFOCAL_01" / "Cortex" / "Runs"
    (group / "notes {{ x }}.txt").touch()
    (group / "old:runs").mkdir()
    (group / "fine").mkdir()
    found = [(f.rule, f.offending_path, f.offending_kind) for f in _on_disk(tmp_path, RUN, "a.tif")]
    assert found == [
        (Rule.ILLEGAL_FILESYSTEM_CHARACTER, "CONFOCAL_01/Cortex/Runs/old:runs", FOLDER),
        (Rule.LEFTOVER_JINJA_MARKER, "CONFOCAL_01/Cortex/Runs/notes {{ x }}.txt", FILE),
    ]


def test_what_lies_beside_projects_is_looked_at_too(tmp_path: Path) -> None:
    equipment = tmp_path / "CONFOCAL_01"
    (equipment / ".exlab-wizard").mkdir(parents=True)
    (equipment / ".exlab-wizard" / "equipment.json").write_text('{"schema_version": "2.0"}')
    (equipment / "scan <x>.log").touch()
    (equipment / "fine.log").touch()
    walks = RememberedWalks(AuditRules(), tmp_path, may_remember=False)
    found = in_order(f for audit in walks.scope("CONFOCAL_01") for f in audit.findings)
    hard = [(f.rule, f.offending_path, f.offending_kind, f.matched_token) for f in found if f.tier is Tier.HARD]
    assert hard == [
        (Rule.ILLEGAL_FILESYSTEM_CHARACTER, "CONFOCAL_01/scan <x>.log", FILE, "<"),
        (Rule.ILLEGAL_FILESYSTEM_CHARACTER, "CONFOCAL_01/scan <x>.log", FILE, ">"),
        (Rule.UNRESOLVED_PLACEHOLDER_TOKEN, "CONFOCAL_01/scan <x>.log", FILE, "<x>"),
    ]
    soft = [(f.rule, f.offending_path) for f in found if f.tier is not Tier.HARD]
    assert soft == [(Rule.UNREADABLE_FOLDER, "CONFOCAL_01/.exlab-wizard/equipment.json")]
    assert {f.run_path for f in found} == {""}


def _signs() -> Iterator[tuple[RunKind, str, str, bool]]:
    for kind in RunKind:
        for leaf in ("Run_1", "TestRun_1"):
            for group in ("Runs", "TestRuns", ""):
                agree = bool(group) and RunKind.of_leaf(leaf) is kind and RunKind.of_group(group) is kind
                yield kind, group, leaf, agree


@pytest.mark.parametrize(("kind", "group", "leaf", "agree"), list(_signs()))
def test_the_signs_of_a_runs_kind_in_both_modes(
    tmp_path: Path, kind: RunKind, group: str, leaf: str, agree: bool
) -> None:
    run = replace(RUN, group=group, leaf=leaf)
    folder = tmp_path / str(run) / ".exlab-wizard"
    folder.mkdir(parents=True)
    (folder / "creation.json").write_text(json.dumps({"schema_version": "1.4", "level": "run", "run_kind": kind.value}))
    audited = walk.audit_run(tmp_path, run, AuditRules()).findings
    proposed = check_proposal(Proposal(str(run), kind), ContentScan())
    for findings in (audited, proposed):
        found = [f for f in findings if f.rule is Rule.MODE_PREFIX_MISMATCH]
        assert len(found) == (0 if agree else 1)
        if found:
            assert kind.value in found[0].rule_detail
            assert repr(RunKind.of_leaf(leaf).leaf_prefix) in found[0].rule_detail  # type: ignore[union-attr]
            assert (repr(group) if group else "straight under its project") in found[0].rule_detail


def test_findings_are_the_same_whatever_order_a_folder_is_listed_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        _on_disk(tmp_path, replace(RUN, leaf=f"Run_{number % 3}"), f"{number % 4}/{{{{ {number} }}}}:{number}")
    real, chance = os.scandir, random.Random(3)

    class Shuffled:
        def __init__(self, *arguments: object) -> None:
            with real(*arguments) as entries:  # type: ignore[call-overload]
                self._entries = list(entries)
            chance.shuffle(self._entries)

        def __enter__(self) -> Iterator[os.DirEntry[str]]:
            return iter(self._entries)

        def __exit__(self, *problem: object) -> None:
            return None

    def all_findings() -> str:
        walks = RememberedWalks(AuditRules(), tmp_path, may_remember=False)
        return repr(in_order(f for audit in walks.scope("CONFOCAL_01") for f in audit.findings))

    first = all_findings()
    assert first.count("leftover_jinja_marker") >= 20
    monkeypatch.setattr(os, "scandir", Shuffled)
    assert {all_findings() for _ in range(5)} == {first}


def test_thousands_of_acquired_files_give_no_false_finding(tmp_path: Path) -> None:
    folder = tmp_path / str(RUN)
    _on_disk(tmp_path, RUN, "README.md")
    for position in range(40):
        place = folder / f"Position {position:03}"
        place.mkdir()
        for number in range(50):
            kind, text = [
                ("xml", f'<?xml version="1.0"?><OME><Image ID="{{{{{number}}}}}"><Pixels/></Image></OME>'),
                ("csv", "<m/z>,<intensity>,{% raw %}\n1,2,{{ x }}\n"),
                ("txt", "<Operator>: {{ operator }}"),
                ("json", '{"tag": "<Sample>"}'),
            ][number % 4]
            (place / f"tile {number} (ch=1, z=+2).{kind}").write_text(text)
    (audit,) = [a for a in RememberedWalks(AuditRules(), tmp_path, may_remember=False).scope("CONFOCAL_01")
                if isinstance(a, RunAudit) and a.run == RUN]  # fmt: skip
    assert audit.findings == ()
