"""A copy is read back in portions, so that a transfer never waits long for it; what the portions say together. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from services.sync_engine.transfer.transport import CopiedFile, EvidenceGrade, VerifyOutcome

MOST_FILES = 2_000
MOST_BYTES = 1 << 30


def portions(files: Sequence[CopiedFile]) -> Iterator[Sequence[CopiedFile]]:
    """The files in their order, cut so that none has too many files or bytes; a large file is one alone."""
    portion: list[CopiedFile] = []
    held = 0
    for file in files:
        if portion and (len(portion) == MOST_FILES or held + file.size > MOST_BYTES):
            yield portion
            portion, held = [], 0
        portion.append(file)
        held += file.size
    if portion:
        yield portion


def together(outcomes: Sequence[VerifyOutcome]) -> VerifyOutcome:
    """What the portions of one copy found. Each takes the files of the others for unexpected ones: only those count
    that no portion expected."""
    if len(outcomes) == 1:
        return outcomes[0]
    first = outcomes[0]
    unexpected = set(first.unexpected).intersection(*(o.unexpected for o in outcomes))
    return VerifyOutcome(
        expected=sum(o.expected for o in outcomes),
        hashed=sum(o.hashed for o in outcomes),
        matched=sum(o.matched for o in outcomes),
        missing=tuple(sorted(path for o in outcomes for path in o.missing)),
        differing=tuple(sorted(path for o in outcomes for path in o.differing)),
        unexpected=tuple(sorted(unexpected)),
        evidence=tuple(e for o in outcomes for e in o.evidence),
        method=first.method,
        grade=EvidenceGrade(min(o.grade for o in outcomes)),
        host=first.host,
        note=first.note,
        oversize=tuple(sorted(path for o in outcomes for path in o.oversize)),
    )


@dataclass(frozen=True, slots=True)
class ScrubPortion:
    """Files to read again now, and when the oldest of all files was read once they were (at `now`)."""

    files: Sequence[CopiedFile]
    oldest_then: datetime


def oldest_first(files: Sequence[CopiedFile], read: Mapping[bytes, datetime], now: datetime) -> ScrubPortion:
    """The files that were not read for longest, as many as make a portion. One that nothing tells of comes first."""
    never = datetime.min.replace(tzinfo=now.tzinfo)
    by_age = sorted(files, key=lambda file: (read.get(file.path, never), file.path))
    portion = next(portions(by_age), ())
    rest = by_age[len(portion) :]
    oldest = min((read.get(file.path, never) for file in rest), default=now)
    return ScrubPortion(portion, min(oldest, now))
