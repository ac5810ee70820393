"""What holds for all pages: links lead somewhere, nothing of this machine is in them, the transcript is the demo's."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
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


def _check(script: Path, log: Path) -> str:
    """What it says, run with the standard library alone; a broken log must be an error status."""
    command = [sys.executable, "-I", "-S", str(script), str(log)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode == 0) == result.stdout.startswith("intact"), result
    return result.stdout + result.stderr
