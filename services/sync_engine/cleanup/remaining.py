"""What is still here after a deletion, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from labferry.sync.v1 import run_pb2
from services.sync_engine.cleanup.deletion import Remaining
from services.sync_engine.cleanup.local_files import files_left
from services.sync_engine.runs.location import LocatedRun
from services.sync_engine.transfer.system_error import shown
from services.sync_engine.transfer.transport import TransferError, bytes_unless_text

MOST_REMAINING = 100


@dataclass(slots=True)
class RemainingFiles:
    """How many files are still there, and the first of them."""

    count: int = 0
    first: list[Remaining] = field(default_factory=list)

    def add(self, files: Iterable[Remaining]) -> None:
        for file in files:
            self.count += 1
            if len(self.first) < MOST_REMAINING:
                self.first.append(file)

    def join(self, others: RemainingFiles) -> None:
        """Those after these."""
        self.count += others.count
        self.first += others.first[: MOST_REMAINING - len(self.first)]


def left_over(located: LocatedRun, why: Callable[[bytes], str]) -> RemainingFiles:
    """The files that lie in the run's folder, its cache apart. `why`, asked in the order of their paths, says of each
    why it is there; an empty text leaves it out."""
    left = RemainingFiles()
    try:
        left.add(Remaining(path, said) for path in files_left(located) if (said := why(path)))
    except TransferError as error:
        left.add([Remaining(b".", f"the run can't be looked at: {error.message}")])
    return left


def remaining_message(remaining: Remaining) -> run_pb2.RemainingFile:
    return run_pb2.RemainingFile(
        path=shown(remaining.path), path_bytes=bytes_unless_text(remaining.path), why=remaining.why
    )
