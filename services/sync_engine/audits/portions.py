"""A copy is read back in portions, so that a transfer never waits long for it; what the portions say together. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from heapq import nsmallest

from services.sync_engine.transfer.path_order import by_path
from services.sync_engine.transfer.spilled_list import ListWriter
from services.sync_engine.transfer.transport import CopiedFile, FileEvidence, VerifyOutcome

MOST_FILES = 2_000
MOST_BYTES = 1 << 30
_MOST_PORTIONS = 16
_MOST_IN_MEMORY = 16_384


def files_at_once(total: int) -> int:
    """How many files of so many are read in one portion. Each portion has the whole copy listed, which takes as long as
    the copy has names: of a large one few portions are better, as long as its records fit in memory."""
    return max(MOST_FILES, min(total // _MOST_PORTIONS, _MOST_IN_MEMORY))


def next_portion(files: Iterable[CopiedFile], most: int | None = None) -> Sequence[CopiedFile]:
    """The first of the files, cut so that there aren't too many files (`most`, else 2,000) or bytes; a large file is
    one alone."""
    most = most or MOST_FILES
    portion: list[CopiedFile] = []
    held = 0
    for file in files:
        if portion and (len(portion) == most or held + file.size > MOST_BYTES):
            break
        portion.append(file)
        held += file.size
    return portion


class PortionedPass:
    """One pass over the files of a copy, which are sorted by path, portion after portion."""

    def __init__(self, expected: Sequence[CopiedFile]) -> None:
        self.expected = expected
        self._most = files_at_once(len(expected))
        self._read = 0
        self._evidence = ListWriter(FileEvidence)
        self._sum: VerifyOutcome | None = None

    def next(self) -> Sequence[CopiedFile]:
        """What is to be read next; empty when everything was."""
        return next_portion(self.expected[self._read : self._read + self._most + 1], self._most)

    def note(self, portion: Sequence[CopiedFile], found: VerifyOutcome) -> None:
        """What a portion came to. Of unexpected files those count that were there the last time."""
        self._read += len(portion)
        self._evidence.extend(found.evidence)
        before = self._sum
        if before is not None:
            found = replace(
                found,
                expected=before.expected + found.expected,
                hashed=before.hashed + found.hashed,
                matched=before.matched + found.matched,
                missing=(*before.missing, *found.missing),
                differing=(*before.differing, *found.differing),
                grade=min(before.grade, found.grade),
                oversize=(*before.oversize, *found.oversize),
                unreadable=(*before.unreadable, *found.unreadable),
            )
        self._sum = replace(found, evidence=())

    def outcome(self) -> VerifyOutcome | None:
        """What all portions say together; None when there was none."""
        return None if self._sum is None else replace(self._sum, evidence=self._evidence.finish())


@dataclass(frozen=True, slots=True)
class ScrubPortion:
    """Files to read again now, sorted by path, and when the oldest of all files was read once they were (at `now`)."""

    files: Sequence[CopiedFile]
    oldest_then: datetime


def oldest_first(files: Iterable[tuple[CopiedFile, datetime | None]], total: int, now: datetime) -> ScrubPortion:
    """Of so many files, each with the time when it was read, those that were not read for longest, as many as make a
    portion. One that nothing tells of comes first."""
    never = datetime.min.replace(tzinfo=now.tzinfo)
    most = files_at_once(total)
    by_age = nsmallest(most + 1, ((read or never, file.path, file) for file, read in files))
    portion = next_portion((file for _, _, file in by_age), most)
    oldest = next((read for read, _, _ in by_age[len(portion) :]), now)
    return ScrubPortion(sorted(portion, key=by_path), min(oldest, now))
