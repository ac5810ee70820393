"""What the parts of the conformance suite share: a transport, a run, an empty destination and a job between them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from services.sync_engine.transfer.bandwidth import UNLIMITED, Bandwidth
from services.sync_engine.transfer.transport import (
    Transport,
)
from tests.integration.transfer.carrying import HOSTILE_NAMES, Carrying


def children_of_this_process() -> set[int]:
    """Processes that this one started and that run, those of other parts of the test included."""
    found = set()
    for thread in os.listdir("/proc/self/task"):
        try:
            children = Path(f"/proc/self/task/{thread}/children").read_text().split()
        except OSError:
            # The thread ended meanwhile, and its children with it.
            continue
        found |= {int(child) for child in children}
    return found


class Conforming:
    """A transport subclasses `TransportConformance` and says how it is opened. `keeps` names what the destination
    keeps: "links", "empty folders", "folder times", "far times", "any bytes"."""

    mtime_step_ns = 1
    keeps = frozenset({"links", "empty folders", "folder times", "far times", "any bytes"})
    names: Sequence[bytes] = HOSTILE_NAMES
    small_files = 700
    large_bytes = 70 << 20
    several_batches = 1500

    def open(self, destination: Path, bandwidth: Bandwidth = UNLIMITED) -> Transport:
        raise NotImplementedError

    @pytest.fixture
    def carrying(self, tmp_path: Path) -> Iterator[Carrying]:
        source, destination = tmp_path / "run", tmp_path / "nas"
        source.mkdir()
        destination.mkdir(exist_ok=True)
        before = children_of_this_process()
        carrying = Carrying(source, destination, self.open(destination))
        yield carrying
        assert carrying.progress.untrue == []
        assert children_of_this_process() <= before
