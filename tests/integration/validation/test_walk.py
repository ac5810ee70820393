"""Audits of runs as they lie on disk: every level, names and rendered content, each finding once (SPEC §3)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from libs.run_tree.creation_record import CreationRecord, parse_creation
from libs.run_tree.run_path import RunPath
from services.sync_engine.validation.content_scan import ContentScan
from services.sync_engine.validation.finding import Finding, OffendingKind, Rule
from services.sync_engine.validation.walk import WalkError, audit_run, audit_scope

RUN = RunPath("CONFOCAL_01", "Cortex", "Runs", "Run_2026-04-17T14-32")
SCAN = ContentScan()


def creation(**fields: Any) -> CreationRecord:
    return parse_creation(json.dumps({"schema_version": "1.8", "level": "run"} | fields).encode())


def put(root: Path, run: RunPath, name: str | bytes, content: bytes = b"") -> None:
    place = os.path.join(os.fsencode(root / str(run)), os.fsencode(name))
    os.makedirs(os.path.dirname(place), exist_ok=True)
    with open(place, "wb") as stream:
        stream.write(content)


def said(findings: list[Finding]) -> list[tuple[Rule, str, OffendingKind, str | None]]:
    return [(one.rule, one.offending_path, one.offending_kind, one.matched_token) for one in findings]


def audit(root: Path, record: CreationRecord | None = None, run: RunPath = RUN) -> list[Finding]:
    return audit_run(root, run, SCAN, record or creation())


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
    assert bool(audit_run(tmp_path, RUN, ContentScan(max_mib=1), record)) is found


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


def test_a_scope_has_every_run_and_what_lies_above_once(tmp_path: Path) -> None:
    runs = [
        RunPath("CONFOCAL_01", "bad:", "Runs", "Run_1"),
        RunPath("CONFOCAL_01", "bad:", "Runs", "Run_2"),
        RunPath("CONFOCAL_01", "good", "", "Run_3"),
        RunPath("CONFOCAL_01", "good", "TestRuns", "TestRun_4"),
    ]
    for run in runs:
        put(tmp_path, run, ".exlab-wizard/creation.json", b'{"schema_version":"1.8","level":"run","run_kind":"test"}')
    put(tmp_path, runs[1], ".exlab-wizard/creation.json", b"{")
    audits = list(audit_scope(tmp_path, equipment_id="CONFOCAL_01", settings=SCAN))
    assert [one.run for one in audits] == [*runs, None]
    assert [len(one.findings) for one in audits] == [1, 0, 1, 0, 1]
    assert [one.creation is None for one in audits] == [False, True, False, False, True]
    assert audits[-1].findings[0].offending_path == "CONFOCAL_01/bad:"
    project = list(audit_scope(tmp_path, equipment_id="CONFOCAL_01", project="good", settings=SCAN))
    assert [one.run for one in project] == [*runs[2:], None]
