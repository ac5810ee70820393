"""A second process that stands ready, and what it has done."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from services.sync_engine.transfer.second_process.process import SecondProcess

_PATIENCE = 30


@contextmanager
def running_second_process(**fields: Any) -> Iterator[SecondProcess]:
    second = SecondProcess(**fields)
    try:
        until_ready(second)
        yield second
    finally:
        second.close()


def until_ready(second: SecondProcess) -> int:
    """Its process number."""
    latest = time.monotonic() + _PATIENCE
    while not second.is_ready():
        assert time.monotonic() < latest, "it never was ready"
        time.sleep(0.01)
    assert second.process is not None
    return second.process


def bytes_read_by(process: int) -> int:
    """From files, through the cache or past it."""
    counts = dict(line.split(": ") for line in Path(f"/proc/{process}/io").read_text().splitlines())
    return int(counts["rchar"]) + int(counts["read_bytes"])


def open_below(process: int, folder: Path) -> list[str]:
    """What it has open there."""
    found = []
    for descriptor in os.listdir(f"/proc/{process}/fd"):
        try:
            place = os.readlink(f"/proc/{process}/fd/{descriptor}")
        except FileNotFoundError:
            continue
        if place.startswith(str(folder)):
            found.append(place)
    return found
