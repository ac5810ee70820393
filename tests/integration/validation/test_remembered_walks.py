"""A repeated walk reads nothing that didn't change, and misses no change: compared with fresh walks after edits."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.run_tree.run_path import RunPath
from services.sync_engine.validation import looked_at, walk
from services.sync_engine.validation.remembered_walks import RememberedWalks
from services.sync_engine.validation.walk import AuditRules, RunAudit, audit_run

RUN = RunPath("E", "P", "Runs", "Run_1")
RULES = AuditRules(required_fields=frozenset({"irb"}))
STEP_NS = 20_000_000
"""More than a Linux file system's clock step: what is older can't change without a trace."""


def _put(root: Path, name: str, content: bytes = b"") -> None:
    place = root / str(RUN) / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)


def _new_run(root: Path) -> None:
    _put(root, ".exlab-wizard/creation.json", json.dumps({"schema_version": "1.4", "level": "run"}).encode())
    _put(root, ".exlab-wizard/readme_fields.json", b'{"config_fields":{"irb":"1"}}')
    _put(root, "README.md", b"---\nlabel: x\n---\n")
    for number in range(4):
        _put(root, f"sub{number}/file.tif", b"x")


@pytest.fixture
def short_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looked_at, "GRANULARITY_NS", STEP_NS)


def _until_settled(root: Path) -> None:
    """Until everything was changed longer ago than the clock's step."""
    names = (os.path.join(parent, name) for parent, folders, files in os.walk(root) for name in ("", *folders, *files))
    newest = max(os.lstat(name).st_ctime_ns for name in names)
    while time.time_ns() <= newest + STEP_NS:
        pass


def _if_there(path: Path, edit: Callable[[Path], object]) -> None:
    if path.exists():
        edit(path)


EDITS: dict[str, Callable[[Path], object]] = {
    "a new file": lambda run: (run / "sub1" / "{{ new }}.txt").touch(),
    "a new folder": lambda run: (run / "sub2" / "<folder>").mkdir(exist_ok=True),
    "a deep file": lambda run: _if_there(run / "sub2" / "<folder>", lambda folder: (folder / "aux").touch()),
    "a removed folder": lambda run: shutil.rmtree(run / "sub3", ignore_errors=True),
    "a renamed file": lambda run: _if_there(run / "sub0/file.tif", lambda file: file.rename(run / "sub0/con")),
    "rendered content": lambda run: (run / "README.md").write_bytes(b"---\nlabel: {{ x }}\n---\n"),
    "content of the same length": lambda run: (run / "README.md").write_bytes(b"---\nlabe: <x>\n---\n"),
    "no rendered file": lambda run: (run / "README.md").unlink(missing_ok=True),
    "the creation.json": lambda run: (run / ".exlab-wizard/creation.json").write_bytes(b"{"),
    "the readme fields": lambda run: (run / ".exlab-wizard/readme_fields.json").write_bytes(b"{}"),
    "no readme fields": lambda run: (run / ".exlab-wizard/readme_fields.json").unlink(missing_ok=True),
    "times set back": lambda run: _if_there(run / "README.md", lambda file: os.utime(file, ns=(0, 0))),
    "nothing": lambda run: None,
}


@given(st.lists(st.sampled_from(sorted(EDITS)), max_size=8))
@settings(max_examples=30)
def test_after_any_edits_it_says_what_a_fresh_walk_says(edits: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        root = Path(folder)
        _new_run(root)
        patch.setattr(looked_at, "GRANULARITY_NS", STEP_NS)
        walks = RememberedWalks(RULES, root, may_remember=True)
        for edit in edits:
            _until_settled(root)
            walks.run(RUN)
            EDITS[edit](root / str(RUN))
            assert walks.run(RUN).findings == audit_run(root, RUN, RULES).findings


def _reads(monkeypatch: pytest.MonkeyPatch) -> list[RunPath]:
    done: list[RunPath] = []

    def counted(root: Path, run: RunPath, rules: AuditRules) -> RunAudit:
        done.append(run)
        return walk.audit_run(root, run, rules)

    monkeypatch.setattr("services.sync_engine.validation.remembered_walks.audit_run", counted)
    return done


@pytest.mark.usefixtures("short_step")
def test_an_unchanged_tree_is_not_walked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _new_run(tmp_path)
    _until_settled(tmp_path)
    done = _reads(monkeypatch)
    walks = RememberedWalks(RULES, tmp_path, may_remember=True)
    first = walks.run(RUN)
    assert [walks.run(RUN).findings for _ in range(3)] == [first.findings] * 3
    assert len(done) == 1
    (tmp_path / str(RUN) / "sub0" / "new").touch()
    walks.run(RUN)
    assert len(done) == 2


def test_what_changed_within_the_clocks_step_stays_suspect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _new_run(tmp_path)
    done = _reads(monkeypatch)
    walks = RememberedWalks(RULES, tmp_path, may_remember=True)
    walks.run(RUN)
    walks.run(RUN)
    assert len(done) == 2


@pytest.mark.usefixtures("short_step")
def test_a_network_filesystem_gets_no_shortcut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _new_run(tmp_path)
    _until_settled(tmp_path)
    done = _reads(monkeypatch)
    walks = RememberedWalks(RULES, tmp_path, may_remember=False)
    walks.run(RUN)
    walks.run(RUN)
    assert len(done) == 2


def test_a_scope_has_every_project_and_every_run(tmp_path: Path) -> None:
    runs = [
        RunPath("CONFOCAL_01", "bad:", "Runs", "Run_1"),
        RunPath("CONFOCAL_01", "bad:", "Runs", "Run_2"),
        RunPath("CONFOCAL_01", "good", "", "Run_3"),
        RunPath("CONFOCAL_01", "good", "TestRuns", "TestRun_4"),
    ]
    for run in runs:
        cache = tmp_path / str(run) / ".exlab-wizard"
        cache.mkdir(parents=True)
        (cache / "creation.json").write_bytes(b'{"schema_version":"1.4","level":"run","run_kind":"test"}')
    (tmp_path / str(runs[1]) / ".exlab-wizard" / "creation.json").write_bytes(b"{")
    walks = RememberedWalks(AuditRules(), tmp_path, may_remember=True)
    audits = list(walks.scope("CONFOCAL_01"))
    # Each project's own files come before its runs.
    projects = [RunPath("CONFOCAL_01", "bad:", "", ""), RunPath("CONFOCAL_01", "good", "", "")]
    assert [a.run for a in audits if isinstance(a, RunAudit)] == [projects[0], *runs[:2], projects[1], *runs[2:]]
    assert [len(a.findings) for a in audits if isinstance(a, RunAudit)] == [0, 1, 1, 0, 1, 0]
    above = {(f.rule.value, f.offending_path) for a in audits if not isinstance(a, RunAudit) for f in a.findings}
    assert above == {
        ("illegal_filesystem_character", "CONFOCAL_01/bad:"),
        ("unsafe_project_name", "CONFOCAL_01/bad:"),
        ("orphan", "CONFOCAL_01/bad:"),
        ("orphan", "CONFOCAL_01/good"),
    }
    good = [a.run for a in walks.scope("CONFOCAL_01", "good") if isinstance(a, RunAudit)]
    assert good == [projects[1], *runs[2:]]
