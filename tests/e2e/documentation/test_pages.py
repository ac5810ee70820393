"""What holds for all pages: links lead somewhere, nothing of this machine is in them, the transcript is the demo's."""

from __future__ import annotations

import io
import json
import re
import sqlite3
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.e2e.documentation.pages import REPOSITORY, Page, pages
from tests.e2e.documentation.workplace import Workplace


@pytest.mark.parametrize("name", pages())
def test_links_lead_somewhere(name: str) -> None:
    page = Page.read(name)
    for target in page.links():
        assert (page.path.parent / target).exists(), target


@pytest.mark.parametrize("name", pages())
def test_no_path_of_a_machine_and_no_file_of_ours_that_others_lack(name: str) -> None:
    text = Page.read(name).text
    assert not re.search(r"/(work|tmp|root|home)/|SPEC|ARCHITECTURE|FORMATS", text)


def test_the_transcript_names_what_the_demo_says() -> None:
    (transcript,) = Page.read("README.md").blocks("text")
    play = (REPOSITORY / "cli" / "demo" / "play.py").read_text(encoding="utf-8")
    titles = re.findall(r"^\d\. (.+)$", transcript, re.MULTILINE)
    assert len(titles) == 7
    assert all(f'"{title}"' in play for title in titles)


def test_the_stand_alone_checker_finds_a_changed_log(place: Workplace, tmp_path: Path) -> None:
    script = tmp_path / "check_log.py"
    script.write_text(Page.read("docs/developer.md").scripts()["check_log.py"], encoding="utf-8")
    copy = tmp_path / "events.sqlite3"
    with (
        sqlite3.connect(place.stage.state / "sync_engine" / "events.sqlite3") as log,
        sqlite3.connect(copy) as other,
    ):
        log.backup(other)
    assert _check(script, copy).startswith("intact: ")
    with sqlite3.connect(copy) as other:
        for (trigger,) in other.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
            other.execute(f"DROP TRIGGER {trigger}")
        other.execute("UPDATE events SET reason = 'as I remember it' WHERE position = 3")
    assert _check(script, copy).startswith("BROKEN at position 3")
    with sqlite3.connect(copy) as other:
        other.execute("DELETE FROM events WHERE position = 2")
    assert _check(script, copy).startswith("BROKEN: position 2 is missing")


def _auditors(script: str, folder: Path) -> Path:
    path = folder / script
    path.write_text(Page.read("docs/auditor.md").scripts()[script], encoding="utf-8")
    return path


def test_the_stand_alone_checker_finds_a_changed_copy(place: Workplace, tmp_path: Path) -> None:
    script = _auditors("check_copy.py", tmp_path)
    export, backup = tmp_path / "export.jsonl", tmp_path / "backup.tar"
    _labferry(place, "export", export)
    _labferry(place, "backup", backup)
    for path in (export, backup):
        assert _check(script, path).startswith("intact: ")
        content = path.read_bytes()
        path.write_bytes(
            content.replace(b'"revision":0,"type":"sync.job.queued', b'"revision":1,"type":"sync.job.queued', 1)
        )
        assert _check(script, path).startswith("BROKEN at position ")
        path.write_bytes(content)
    lines = export.read_bytes().splitlines(keepends=True)
    for shorter in (lines[:3] + lines[4:], lines[:-1], lines[:-3] + lines[-1:]):
        export.write_bytes(b"".join(shorter))
        assert _check(script, export).startswith("BROKEN at position ")
    _without_a_blob(backup)
    assert "the blob " in _check(script, backup)


def _without_a_blob(backup: Path) -> None:
    with tarfile.open(backup) as archive:
        kept = [(member, archive.extractfile(member).read()) for member in archive]  # type: ignore[union-attr]
    kept.remove(next(entry for entry in kept if entry[0].name.startswith("blobs/")))
    with tarfile.open(backup, "w") as archive:
        for member, content in kept:
            archive.addfile(member, io.BytesIO(content))


def test_the_checker_of_checkpoints_finds_a_changed_one(place: Workplace, tmp_path: Path) -> None:
    script = _auditors("check_checkpoints.py", tmp_path)
    export = tmp_path / "export.jsonl"
    _labferry(place, "export", export)
    (key,) = (place.stage.state / "sync_engine" / "keys").glob("*.pub")
    (original,) = (place.stage.state / "sync_engine" / "checkpoints").glob("*.jsonl")
    checkpoints, lines = tmp_path / "checkpoints.jsonl", original.read_bytes().splitlines(keepends=True)
    assert len(lines) > 1

    def check() -> str:
        return _run(script, key, checkpoints, export)

    checkpoints.write_bytes(b"".join(lines))
    assert check().startswith("intact: ")
    checkpoints.write_bytes(lines[0][:50] + b"\n" + b"".join(lines))
    assert check().startswith("intact: ")
    checkpoints.write_bytes(b"".join(lines[1:]))
    assert check().startswith("BROKEN: checkpoint 1 is missing")
    checkpoints.write_bytes(lines[0].replace(b'"time":"20', b'"time":"19') + b"".join(lines[1:]))
    assert check().startswith("BROKEN: checkpoint 1 is missing, was changed")
    checkpoints.write_bytes(b"".join(lines))
    exported = export.read_bytes().splitlines(keepends=True)
    position = json.loads(lines[-1])["position"]
    hash_there = json.loads(exported[position])["hash"].encode()
    export.write_bytes(b"".join(exported).replace(hash_there, hash_there[::-1], 1))
    assert f"had another hash at position {position}" in check()
    export.write_bytes(b"".join(exported[: position - 1] + exported[-1:]))
    assert "the export ends at" in check()


def _labferry(place: Workplace, command: str, file: Path) -> None:
    """Writes a copy of the engine's log."""
    words = ["labferry", "log", command, str(file), "--config", ".demo/labferry.yaml"]
    subprocess.run(words, cwd=place.folder, env=place.environment, check=True, capture_output=True, timeout=60)


def _check(script: Path, log: Path) -> str:
    """What it says, run with the standard library alone."""
    return _run("-S", script, log)


def _run(*arguments: str | Path) -> str:
    """What a script says; what is broken must be an error status."""
    command = [sys.executable, "-I", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode == 0) == result.stdout.startswith("intact"), result
    return result.stdout + result.stderr
