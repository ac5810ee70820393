"""Compares a log with the checkpoints outside its database: what a chain that was computed anew can't hide."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from libs.event_log import checkpoint_file
from libs.event_log.checkpoint import Checkpoint, SignedCheckpoint
from libs.event_log.event import RecordedEvent


@dataclass(frozen=True, slots=True)
class CheckpointProblem:
    """`number` 0: the whole file is meant. `position` 0: it isn't known which event it was about."""

    file: Path
    number: int
    position: int
    reason: str


@dataclass(frozen=True, slots=True)
class UnreadPlace:
    """A place that could not be read, and so was not compared."""

    file: Path
    reason: str


@dataclass(frozen=True, slots=True)
class ExpectedCheckpoints:
    """A place to look at. `delivered`: the last number of `series` that was written there; 0 when that isn't known."""

    folder: Path
    series: str
    delivered: int


@dataclass(frozen=True, slots=True)
class _Claim:
    file: Path
    checkpoint: Checkpoint


class CheckpointCheck:
    """Reads the places, then is shown the log's events in order, and tells what doesn't fit."""

    def __init__(self, service: str, store_id: str, trusted: frozenset[bytes]) -> None:
        self._service = service
        self._store_id = store_id
        self._trusted = trusted
        self._head = 0
        self._open: dict[int, list[_Claim]] = {}
        self._agreed: list[int] = []
        self._wrong: list[tuple[_Claim, bytes]] = []
        self.checked = 0
        self.problems: list[CheckpointProblem] = []
        self.unread: list[UnreadPlace] = []

    def load(self, places: Iterable[ExpectedCheckpoints]) -> None:
        """Reads every place and checks signatures and numbers. Blocks."""
        for place in places:
            name = checkpoint_file.file_name(self._service, self._store_id, place.series)
            try:
                files = checkpoint_file.files_of_log(place.folder, self._service, self._store_id)
                if place.delivered and place.folder / name not in files:
                    self._problem(place.folder / name, 0, 0, f"the file is gone; it had {place.delivered} checkpoints")
                for file in files:
                    self._load_file(file, place.delivered if file.name == name else 0)
            except OSError as error:
                self.unread.append(UnreadPlace(place.folder / name, error.strerror or str(error)))

    def begin(self, first: int, last: int, head: int) -> None:
        """Says which positions are going to be shown. Checkpoints beyond the head count when `last` is the head.

        Called after `load`: a checkpoint that was made before the head was looked at can't lie beyond it.
        """
        self._head = head
        beyond = last >= head
        self._open = {p: c for p, c in self._open.items() if first <= p and (p <= last or (beyond and p > head))}
        self.checked = sum(map(len, self._open.values()))

    def show(self, events: Iterable[RecordedEvent]) -> None:
        """Compares these events, in order, with what checkpoints say of them."""
        if not self._open:
            return
        for event in events:
            for claim in self._open.pop(event.position, ()):
                if claim.checkpoint.hash == event.hash:
                    self._agreed.append(event.position)
                else:
                    self._wrong.append((claim, event.hash))

    def finish(self) -> Sequence[CheckpointProblem]:
        """Everything that is wrong, by position."""
        agreed = sorted(self._agreed)
        for claim, found in self._wrong:
            position = claim.checkpoint.position
            index = bisect.bisect_left(agreed, position)
            since = f"after position {agreed[index - 1]}" if index else "at or after position 1"
            self._about(
                claim,
                f"signed at {claim.checkpoint.time}: position {position} had the hash {claim.checkpoint.hash.hex()};"
                f" the log now has {found.hex()}. Events {since} and up to {position} were replaced",
            )
        for position, claims in self._open.items():
            for claim in claims:
                missing = f"the log ends at {self._head}" if position > self._head else "no event has that position"
                self._about(claim, f"signed at {claim.checkpoint.time}: position {position} was recorded; {missing}")
        self.problems.sort(key=lambda problem: (problem.position, str(problem.file), problem.number))
        return self.problems

    def _load_file(self, file: Path, delivered: int) -> None:
        numbers: dict[str, set[int]] = {}
        unreadable: list[int] = []
        for line_number, line in enumerate(checkpoint_file.read_lines(file), start=1):
            if isinstance(line, SignedCheckpoint):
                numbers.setdefault(line.checkpoint.series, set()).add(line.checkpoint.number)
                self._load_checkpoint(file, line)
            else:
                unreadable.append(line_number)
        # A line that a crash cut off was written again, so it alone means nothing.
        hint = f"; not readable: line {', '.join(map(str, unreadable[:10]))}" if unreadable else ""
        for found in numbers.values():
            for number in range(1, max(delivered, *found)):
                if number not in found:
                    self._problem(file, number, 0, f"checkpoint {number} is missing{hint}")
        if delivered and delivered not in {number for found in numbers.values() for number in found}:
            self._problem(file, delivered, 0, f"checkpoint {delivered}, the last one written, is missing{hint}")

    def _load_checkpoint(self, file: Path, signed: SignedCheckpoint) -> None:
        claim = _Claim(file, signed.checkpoint)
        if not signed.is_genuine():
            self._about(claim, "the signature doesn't fit: the checkpoint was changed")
        elif signed.public_key not in self._trusted:
            self._about(claim, f"the key {signed.public_key.hex()} signed it, which this service doesn't know")
        elif signed.checkpoint.store_id != self._store_id:
            self._about(claim, f"it belongs to the log {signed.checkpoint.store_id}")
        else:
            self._open.setdefault(signed.checkpoint.position, []).append(claim)

    def _about(self, claim: _Claim, reason: str) -> None:
        self._problem(claim.file, claim.checkpoint.number, claim.checkpoint.position, reason)

    def _problem(self, file: Path, number: int, position: int, reason: str) -> None:
        self.problems.append(CheckpointProblem(file, number, position, reason))
