"""The run's log for people: its exact format, its limit, and which lines are lacking."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.run_tree.wizard_log import (
    MAX_LINE_BYTES,
    LogLevel,
    LogTags,
    append_lines,
    log_line,
    missing_lines,
    read_lines,
)

AT = datetime(2026, 4, 17, 14, 32, 11, 999_999, tzinfo=UTC)
TAGS = LogTags(
    host="ws1", equipment="CONFOCAL_01", project="PROJ-0042", kind="experimental", run="Run_2026-04-17T14-32"
)


def test_the_format_to_the_byte() -> None:
    assert log_line(AT, LogLevel.INFO, TAGS, "all is well") == (
        b"2026-04-17T14:32:11Z [INFO ] [host:ws1] [equip:CONFOCAL_01] [proj:PROJ-0042] [kind:experimental]"
        b" [run:Run_2026-04-17T14-32] all is well"
    )
    assert log_line(AT, LogLevel.ERROR, LogTags(host="ws1"), "no") == b"2026-04-17T14:32:11Z [ERROR] [host:ws1] no"


@given(st.text(max_size=3000))
def test_any_message_is_one_line_of_at_most_1024_bytes(message: str) -> None:
    line = log_line(AT, LogLevel.WARN, TAGS, message)
    assert len(line) <= MAX_LINE_BYTES
    assert b"\n" not in line
    assert b"\r" not in line
    text = line.decode()
    assert text.startswith("2026-04-17T14:32:11Z [WARN ] [host:ws1]")


def test_a_long_line_loses_the_end_of_its_message_at_a_character_boundary() -> None:
    line = log_line(AT, LogLevel.INFO, TAGS, "é" * 2000)
    assert line.endswith("é...[truncated]".encode())
    assert 1022 <= len(line) <= 1024


def test_lines_of_another_host_count_and_each_as_often_as_it_is_there() -> None:
    here = log_line(AT, LogLevel.INFO, TAGS, "x")
    other = log_line(AT, LogLevel.INFO, LogTags(**{**_fields(TAGS), "host": "ws2"}), "x")
    assert missing_lines([here, here], []) == [here, here]
    assert missing_lines([here, here], [other]) == [here]
    assert missing_lines([here], [other, b"somebody's"]) == []


def test_a_torn_line_stays_a_line_of_its_own(tmp_path: Path) -> None:
    (tmp_path / ".exlab-wizard").mkdir()
    append_lines(tmp_path, "ws1", [b"one", b"two"])
    path = tmp_path / ".exlab-wizard" / "wizard.ws1.log"
    with path.open("ab") as file:
        file.write(b"to")
    append_lines(tmp_path, "ws1", [b"three"])
    assert path.read_bytes() == b"one\ntwo\nto\nthree\n"
    assert path.stat().st_mode & 0o777 == 0o600
    (tmp_path / ".exlab-wizard" / "wizard.ws2.log").write_bytes(b"four\n")
    assert [line for line in read_lines(tmp_path) if line] == [b"one", b"two", b"to", b"three", b"four"]


def test_nothing_is_written_through_a_symlink(tmp_path: Path) -> None:
    (tmp_path / ".exlab-wizard").mkdir()
    (tmp_path / "elsewhere").touch()
    os.symlink(tmp_path / "elsewhere", tmp_path / ".exlab-wizard" / "wizard.ws1.log")
    with pytest.raises(OSError):
        append_lines(tmp_path, "ws1", [b"one"])
    assert (tmp_path / "elsewhere").read_bytes() == b""


def _fields(tags: LogTags) -> dict[str, str]:
    return {name: getattr(tags, name) for name in ("host", "equipment", "project", "kind", "run")}
