"""Audits of runs as they lie on disk: every level, names and rendered content, each finding once (SPEC §3)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from libs.run_tree.run_path import RunPath
from services.sync_engine.validation.content_scan import ContentScan
from services.sync_engine.validation.finding import Finding, OffendingKind, Rule, in_order
from services.sync_engine.validation.walk import AuditRules, WalkError, audit_run
from services.sync_engine.validation.walk_above import audit_project, names_above

RUN = RunPath("CONFOCAL_01", "Cortex", "Runs", "Run_2026-04-17T14-32")
RULES = AuditRules(ContentScan())
PLAIN: dict[str, Any] = {"schema_version": "1.8", "level": "run", "lims_project": {"uid": "p-1"}}


def creation(**fields: Any) -> dict[str, Any]:
    return PLAIN | fields


def put(root: Path, run: RunPath, name: str | bytes, content: bytes = b"") -> None:
    place = os.path.join(os.fsencode(root / str(run)), os.fsencode(name))
    os.makedirs(os.path.dirname(place), exist_ok=True)
    with open(place, "wb") as stream:
        stream.write(content)


def said(findings: list[Finding]) -> list[tuple[Rule, str, OffendingKind, str | None]]:
    return [(one.rule, one.offending_path, one.offending_kind, one.matched_token) for one in findings]


def audit(
    root: Path, document: dict[str, Any] | bytes | None = PLAIN, run: RunPath = RUN, rules: AuditRules = RULES
) -> list[Finding]:
    """The findings with this creation.json in the run, from the equipment's folder downwards. None: without one."""
    if document is not None and (root / str(run)).is_dir():
        content = document if isinstance(document, bytes) else json.dumps(document).encode()
        put(root, run, ".exlab-wizard/creation.json", content)
    return in_order([*names_above(run), *audit_run(root, run, rules).findings])


def test_a_clean_run_has_no_findings(tmp_path: Path) -> None:
    put(tmp_path, RUN, "data/image 01.tif", b"<Tag>{{ x }}")
    put(tmp_path, RUN, "data/metadata.xml", b"<Operator>{{ x }}</Operator>" * 100)
    put(tmp_path, RUN, "ünï/光.csv", b"<a>,<b>")
    assert audit(tmp_path) == []


def test_every_level_below_the_run(tmp_path: Path) -> None:
    put(tmp_path, RUN, "<name>.txt")
    put(tmp_path, RUN, "a/{{ folder }}/deep/aux.dat")
    base = str(RUN)
    assert said(audit(tmp_path)) == [
        (Rule.ILLEGAL_FILESYSTEM_CHARACTER, f"{base}/<name>.txt", OffendingKind.FILE_NAME, "<"),
        (Rule.ILLEGAL_FILESYSTEM_CHARACTER, f"{base}/<name>.txt", OffendingKind.FILE_NAME, ">"),
        (Rule.LEFTOVER_JINJA_MARKER, f"{base}/a/{{{{ folder }}}}", OffendingKind.DIRECTORY_SEGMENT, "{{ folder }}"),
        (Rule.RESERVED_FILESYSTEM_NAME, f"{base}/a/{{{{ folder }}}}/deep/aux.dat", OffendingKind.FILE_NAME, "aux"),
        (Rule.UNRESOLVED_PLACEHOLDER_TOKEN, f"{base}/<name>.txt", OffendingKind.FILE_NAME, "<name>"),
    ]


def test_every_level_above_the_run(tmp_path: Path) -> None:
    run = RunPath("CON", "<project>", "Runs", "Run_{{ x }}")
    put(tmp_path, run, "fine.txt")
    findings = audit(tmp_path, run=run)
    assert {(one.rule, one.offending_path, one.run_path) for one in findings} == {
        (Rule.RESERVED_FILESYSTEM_NAME, "CON", ""),
        (Rule.UNRESOLVED_PLACEHOLDER_TOKEN, "CON/<project>", ""),
        (Rule.ILLEGAL_FILESYSTEM_CHARACTER, "CON/<project>", ""),
        (Rule.LEFTOVER_JINJA_MARKER, "CON/<project>/Runs/Run_{{ x }}", "CON/<project>/Runs/Run_{{ x }}"),
    }
    assert {one.offending_kind for one in findings} == {OffendingKind.DIRECTORY_SEGMENT}


def test_what_lies_above_local_root_is_never_a_finding(tmp_path: Path) -> None:
    root = tmp_path / "{{ not ours }}" / "CON"
    put(root, RUN, "fine.txt")
    assert audit(root) == []


def test_the_mode_is_checked_with_the_record(tmp_path: Path) -> None:
    put(tmp_path, RUN, "fine.txt")
    [finding] = audit(tmp_path, creation(run_kind="test"))
    assert finding.rule is Rule.MODE_PREFIX_MISMATCH
    assert (finding.offending_path, finding.run_path) == (str(RUN), str(RUN))


def test_the_cache_folder_is_never_looked_into(tmp_path: Path) -> None:
    put(tmp_path, RUN, ".exlab-wizard/{{ x }}.txt", b"{{ x }}")
    assert audit(tmp_path, creation(plugins_applied=[{"files_affected": [".exlab-wizard/{{ x }}.txt"]}])) == []
    put(tmp_path, RUN, "data/.exlab-wizard/aux", b"")
    assert len(audit(tmp_path)) == 1


def test_content_is_scanned_where_a_template_rendered_it_and_nowhere_else(tmp_path: Path) -> None:
    template = tmp_path / "template"
    (template / "notes").mkdir(parents=True)
    (template / "notes" / "plan.txt.jinja").touch()
    for name in ("README.md", "notes/plan.txt", "notes/other.txt", "plugin.ini", "data/README.md", "plan.txt"):
        put(tmp_path, RUN, name, b"---\nlabel: {{ x }}\n---\nBody <y>\n")
    record = creation(
        template={"source_path": str(template)},
        plugins_applied=[{"plugin": "p", "files_affected": ["plugin.ini", "../../outside", "gone.txt"]}],
    )
    findings = audit(tmp_path, record)
    assert {(one.offending_path.removeprefix(f"{RUN}/"), one.rule) for one in findings} == {
        ("README.md", Rule.LEFTOVER_JINJA_MARKER),
        ("notes/plan.txt", Rule.LEFTOVER_JINJA_MARKER),
        ("notes/plan.txt", Rule.UNRESOLVED_PLACEHOLDER_TOKEN),
        ("plugin.ini", Rule.LEFTOVER_JINJA_MARKER),
        ("plugin.ini", Rule.UNRESOLVED_PLACEHOLDER_TOKEN),
    }
    assert {one.offending_kind for one in findings} == {OffendingKind.FILE_CONTENT}
    [readme] = [one for one in findings if one.offending_path.endswith("README.md")]
    assert "'label'" in readme.rule_detail


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.txt", b"{{ x }}", True),
        ("a.TXT", b"{{ x }}", True),
        ("a.bin", b"{{ x }}", False),
        ("a", b"{{ x }}", False),
        ("a.txt", b"{{ x }}\0", False),
        ("a.txt", b"." * 8192 + b"\0{{ x }}", True),
        ("a.txt", b"." * (1 << 20) + b"{{ x }}", False),
        ("a.txt", b"\xff{{ x }}", True),
    ],
)
def test_which_rendered_files_are_read(tmp_path: Path, name: str, content: bytes, found: bool) -> None:
    put(tmp_path, RUN, name, content)
    record = creation(plugins_applied=[{"files_affected": [name]}])
    assert bool(audit(tmp_path, record, rules=AuditRules(ContentScan(max_mib=1)))) is found


def test_a_rendered_file_that_is_a_symlink_is_not_read(tmp_path: Path) -> None:
    put(tmp_path, RUN, "fine.txt")
    (tmp_path / "secret.md").write_text("---\na: {{ x }}\n---\n")
    (tmp_path / str(RUN) / "README.md").symlink_to(tmp_path / "secret.md")
    assert audit(tmp_path) == []


def test_a_linked_folder_is_not_walked(tmp_path: Path) -> None:
    put(tmp_path, RUN, "fine.txt")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "aux").touch()
    (tmp_path / str(RUN) / "link").symlink_to(tmp_path / "elsewhere")
    assert audit(tmp_path) == []


def test_names_that_are_not_utf_8_keep_their_bytes(tmp_path: Path) -> None:
    put(tmp_path, RUN, b"\xff:\xfe")
    [finding] = audit(tmp_path)
    assert finding.offending_path == f"{RUN}/\ufffd:\ufffd"
    assert finding.offending_path_bytes == os.fsencode(str(RUN)) + b"/\xff:\xfe"
    finding.rule_detail.encode("utf-8")
    put(tmp_path, RUN, "ü:")
    exact = next(one for one in audit(tmp_path) if "ü" in one.offending_path)
    assert exact.offending_path_bytes == b""


def test_the_same_tree_gives_the_same_findings(tmp_path: Path) -> None:
    for number in range(50):
        put(tmp_path, RUN, f"{number % 5}/{{{{ {number} }}}}:{number}")
    first = audit(tmp_path)
    assert len(first) == 100
    assert repr(audit(tmp_path)) == repr(first)


def test_a_run_that_is_not_there_cannot_be_audited(tmp_path: Path) -> None:
    with pytest.raises(WalkError, match="No such file"):
        audit(tmp_path)


def test_a_run_or_project_without_creation_json_is_an_orphan(tmp_path: Path) -> None:
    put(tmp_path, RUN, "fine.txt")
    assert said(audit(tmp_path, None)) == [(Rule.ORPHAN, str(RUN), OffendingKind.DIRECTORY_SEGMENT, None)]
    project = audit_project(tmp_path, RUN.equipment_id, RUN.project, RULES).findings
    assert [(one.rule, one.offending_path, one.run_path) for one in project] == [
        (Rule.ORPHAN, "CONFOCAL_01/Cortex", ""),
    ]
    assert {one.tier.value for one in project} == {"soft"}
    (tmp_path / "CONFOCAL_01/Cortex/.exlab-wizard").mkdir()
    (tmp_path / "CONFOCAL_01/Cortex/.exlab-wizard/creation.json").write_text(json.dumps(PLAIN | {"level": "project"}))
    assert audit_project(tmp_path, RUN.equipment_id, RUN.project, RULES).findings == ()


@pytest.mark.parametrize(
    "content", [b"{", b"", b"[]", b'{"schema_version":"2.0","level":"run"}', b'{"schema_version":"1.8"}']
)
def test_a_creation_json_that_can_not_be_used(tmp_path: Path, content: bytes) -> None:
    put(tmp_path, RUN, "fine.txt")
    [finding] = audit(tmp_path, content)
    assert (finding.rule, finding.offending_path) == (Rule.UNREADABLE_CREATION_JSON, str(RUN))


@pytest.mark.parametrize(
    ("document", "missing"),
    [
        ({"schema_version": "1.8"}, True),
        ({"schema_version": "1.5"}, True),
        ({"schema_version": "1.8", "lims_project": None}, True),
        ({"schema_version": "1.4"}, False),
        ({"schema_version": "1.8", "original_schema_version": "1.2"}, False),
        ({"schema_version": "1.9", "lims_project": {"uid": "", "short_id": ""}}, False),
    ],
)
def test_lims_project_is_required_from_1_5_on(tmp_path: Path, document: dict[str, Any], missing: bool) -> None:
    put(tmp_path, RUN, "fine.txt")
    findings = audit(tmp_path, document | {"level": "run"})
    assert [(one.rule, one.matched_token) for one in findings] == (
        [(Rule.MISSING_REQUIRED_FIELD, "lims_project")] if missing else []
    )


@pytest.mark.parametrize(
    ("layers", "missing"),
    [
        ({}, True),
        ({"config_fields": {"irb_protocol": "P-1"}}, False),
        ({"config_fields": {"irb_protocol": ""}}, True),
        ({"config_fields": {"irb_protocol": "  "}}, True),
        ({"config_fields": {"irb_protocol": None}}, True),
        ({"config_fields": {"irb_protocol": False}}, False),
        ({"core_fields": {"irb_protocol": ""}, "config_fields": {"irb_protocol": "P-1"}}, True),
        ({"template_fields": {"irb_protocol": "P-1"}, "config_fields": {"irb_protocol": ""}}, False),
        ({"custom_fields": [{"label": "irb_protocol", "value": "P-1"}]}, True),
    ],
)
def test_required_readme_fields_are_looked_up_layer_by_layer(
    tmp_path: Path, layers: dict[str, Any], missing: bool
) -> None:
    rules = AuditRules(required_fields=frozenset({"irb_protocol"}))
    put(tmp_path, RUN, "fine.txt")
    assert audit(tmp_path, rules=rules) == [], "a readme_fields.json may be absent"
    put(tmp_path, RUN, ".exlab-wizard/readme_fields.json", json.dumps({"schema_version": "1.1"} | layers).encode())
    where = f"{RUN}/.exlab-wizard/readme_fields.json"
    expected = [(Rule.MISSING_REQUIRED_FIELD, where, OffendingKind.FILE_CONTENT, "irb_protocol")] if missing else []
    assert said(audit(tmp_path, rules=rules)) == expected


def test_a_readme_fields_json_that_is_none(tmp_path: Path) -> None:
    put(tmp_path, RUN, ".exlab-wizard/readme_fields.json", b"{")
    rules = AuditRules(required_fields=frozenset({"irb_protocol"}))
    assert [one.rule for one in audit(tmp_path, rules=rules)] == [Rule.UNREADABLE_FOLDER]


@pytest.mark.parametrize(
    ("content", "malformed"),
    [
        (b"---\nlabel: x\n---\nBody\n", False),
        (b"Body\n---\n", False),
        (b"---\nlabel: x\n", True),
        (b"---\n" + b"a: 1\n" * 198 + b"---\n", False),
        (b"---\n" + b"a: 1\n" * 199 + b"---\n", True),
        (b"---\nlabel: [1\n---\n", True),
        (b"\xef\xbb\xbf---\nlabel: x\n---\n", False),
    ],
)
def test_front_matter_that_is_malformed(tmp_path: Path, content: bytes, malformed: bool) -> None:
    put(tmp_path, RUN, "README.md", content)
    put(tmp_path, RUN, "data/README.md", b"---\n")
    expected = [(Rule.MALFORMED_YAML_FRONT_MATTER, f"{RUN}/README.md", OffendingKind.FILE_CONTENT, None)]
    assert said(audit(tmp_path)) == (expected if malformed else [])


@pytest.mark.parametrize("name", ["Cortex ", " Cortex", "Cortex.", "Körper", "a:b", "CON"])
def test_a_project_folder_with_an_unsafe_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "CONFOCAL_01" / name).mkdir(parents=True)
    findings = audit_project(tmp_path, "CONFOCAL_01", name, RULES).findings
    [unsafe] = [one for one in findings if one.rule is Rule.UNSAFE_PROJECT_NAME]
    assert (unsafe.offending_path, unsafe.run_path, unsafe.matched_token) == (f"CONFOCAL_01/{name}", "", name)


def test_real_instrument_trees_give_no_false_finding(tmp_path: Path) -> None:
    for number in range(300):
        text = f'<?xml version="1.0"?><OME><Image ID="{{{{{number}}}}}"><Plane/></Image></OME>'.encode()
        put(tmp_path, RUN, f"Position {number:03}/metadata.xml", text)
        put(tmp_path, RUN, f"Position {number:03}/peaks.csv", b"<m/z>,<intensity>\n{% raw %}\n")
    assert audit(tmp_path) == []


def test_cache_files_above_runs_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    put(tmp_path, RUN, "fine.txt")
    broken = {
        "CONFOCAL_01/.exlab-wizard/equipment.json": b'{"schema_version":"2.0"}',
        "CONFOCAL_01/Cortex/Runs/.exlab-wizard/runs.json": b"{",
        "CONFOCAL_01/Cortex/TestRuns/.exlab-wizard/test_runs.json": b'{"schema_version":"1.0","run_kind":"odd"}',
    }

    def unreadable() -> dict[str, str]:
        findings = audit_project(tmp_path, RUN.equipment_id, RUN.project, RULES).findings
        return {f.offending_path: f.rule_detail for f in findings if f.rule is Rule.UNREADABLE_FOLDER}

    assert unreadable() == {}
    for name, content in broken.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(content)
    found = unreadable()
    assert set(found) == set(broken)
    assert "schema_version is '2.0'" in found["CONFOCAL_01/.exlab-wizard/equipment.json"]
    assert str(tmp_path) not in "".join(found.values())
    (tmp_path / "CONFOCAL_01/.exlab-wizard/equipment.json").write_bytes(b'{"schema_version":"1.9","id":"CONFOCAL_01"}')
    assert "CONFOCAL_01/.exlab-wizard/equipment.json" not in unreadable()


@pytest.mark.parametrize("above", ["equipment_id", "project", "leaf"])
def test_a_run_behind_a_symlink_is_walked_where_it_stays_in_its_root(tmp_path: Path, above: str) -> None:
    root = tmp_path / "root"
    put(root, RUN, "<name>.txt")
    put(root, RUN, ".exlab-wizard/creation.json", json.dumps(PLAIN).encode())
    direct = audit_run(root, RUN, RULES).findings
    assert direct
    linked = root / str(RUN).partition(getattr(RUN, above))[0] / getattr(RUN, above)
    for place in (root / "aside", tmp_path / "outside"):
        (linked.resolve() if linked.is_symlink() else linked).rename(place)
        linked.unlink(missing_ok=True)
        linked.symlink_to(place)
        if place.is_relative_to(root):
            assert audit_run(root, RUN, RULES).findings == direct
        else:
            with pytest.raises(WalkError, match="leads out"):
                audit_run(root, RUN, RULES)
