"""One shell a page: its commands are given one after the other, as a reader would, and what they export stays."""

from __future__ import annotations

import os
import re
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_MARK = "command-ended-with"
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Ended:
    """What a command printed on both streams, and its exit status."""

    output: str
    status: int

    def lacks(self, shown: Sequence[str]) -> list[str]:
        """Lines that the page shows and the command did not print. Ids, times and hashes may differ, "…" is any."""
        printed = [_comparable(line) for line in self.output.splitlines()]
        return [line for line in shown if not any(_pattern(line).fullmatch(p) for p in printed)]


class Shell:
    """bash, without anybody's settings."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self, command: str, patience: float) -> Ended:
        """AssertionError when it doesn't end in time."""
        assert self._process.stdin is not None
        # In braces, not in a subshell: an export holds for the commands that follow.
        text = f"{{ {command}\n}} </dev/null; printf '\\n{_MARK} %d\\n' $?\n"
        self._process.stdin.write(text.encode())
        self._process.stdin.flush()
        printed, _, status = self._read_until_mark(command, patience).rpartition(f"\n{_MARK} ")
        return Ended(printed, int(status))

    def _read_until_mark(self, command: str, patience: float) -> str:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        ends, read = time.monotonic() + patience, b""
        while not re.search(rf"\n{_MARK} \d+\n$".encode(), read):
            ready, _, _ = select.select([descriptor], [], [], max(0.0, ends - time.monotonic()))
            assert ready, f"{command!r} did not end in {patience} seconds: {read.decode(errors='replace')}"
            chunk = os.read(descriptor, 65536)
            assert chunk, f"{command!r} ended the shell: {read.decode(errors='replace')}"
            read += chunk
        return read.decode(errors="replace")


def _comparable(line: str) -> str:
    for form, word in ((_UUID, "UUID"), (_TIME, "TIME"), (_DIGEST, "DIGEST")):
        line = form.sub(word, line)
    return " ".join(line.split())


def _pattern(shown: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in _comparable(shown).split("…")))
