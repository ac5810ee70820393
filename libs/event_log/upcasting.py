"""Old payloads in today's form: every version of an event type leads to its newest, one step at a time.

Pure. What is stored stays as it is, for the hash chain and for whoever reads the log; only readers inside a service,
its folds and projections, get the newest form.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

_VERSIONED_NAME = re.compile(r"(?P<family>.+)\.v(?P<version>[1-9][0-9]*)")


class EventEvolutionError(ValueError):
    """Event types or upcasters that leave some stored event without a way to its newest form. Stops the start."""


@dataclass(frozen=True, slots=True)
class Upcaster:
    """One step: from a version of an event type to the next. Both are registered, and neither is ever removed.

    `upcast` makes the next version's payload from this one's alone: no clock, no I/O, no other event.
    """

    source: str
    target: str
    # A function of one payload class can't be typed as one of any payload.
    upcast: Callable[[Any], Message]


@dataclass(frozen=True, slots=True)
class VersionedName:
    """`sync.job.queued.v1` is version 1 of the family `sync.job.queued`."""

    family: str
    version: int

    @classmethod
    def parse(cls, name: str) -> VersionedName:
        """EventEvolutionError for a name without a version."""
        match = _VERSIONED_NAME.fullmatch(name)
        if match is None:
            raise EventEvolutionError(f"the event type {name} doesn't end with its version, as in {name}.v1")
        return cls(match["family"], int(match["version"]))

    def next(self) -> str:
        return f"{self.family}.v{self.version + 1}"


def ways_to_newest(names: Iterable[str], upcasters: Iterable[Upcaster]) -> Mapping[str, Sequence[Upcaster]]:
    """The steps that bring each type's payload to its family's newest version; none for the newest itself.

    EventEvolutionError when a step is missing, comes twice, skips a version or leads to or from an unknown type.
    """
    newest: dict[str, int] = {}
    for name in (parsed := {name: VersionedName.parse(name) for name in names}):
        newest[parsed[name].family] = max(newest.get(parsed[name].family, 0), parsed[name].version)
    steps = _by_source(parsed, upcasters)
    ways: dict[str, Sequence[Upcaster]] = {}
    for name, versioned in parsed.items():
        way: list[Upcaster] = []
        while len(way) < newest[versioned.family] - versioned.version:
            at = way[-1].target if way else name
            if at not in steps:
                raise EventEvolutionError(
                    f"events of type {name} can't be read: no upcaster leads from {at} to"
                    f" {VersionedName.parse(at).next()}, and the newest is version {newest[versioned.family]}"
                )
            way.append(steps[at])
        ways[name] = way
    return ways


def _by_source(known: Mapping[str, VersionedName], upcasters: Iterable[Upcaster]) -> Mapping[str, Upcaster]:
    steps: dict[str, Upcaster] = {}
    for upcaster in upcasters:
        for name in (upcaster.source, upcaster.target):
            if name not in known:
                raise EventEvolutionError(f"an upcaster names the event type {name}, which isn't registered")
        if upcaster.target != known[upcaster.source].next():
            raise EventEvolutionError(
                f"an upcaster leads from {upcaster.source} to {upcaster.target}; each leads to the next version"
            )
        if upcaster.source in steps:
            raise EventEvolutionError(f"two upcasters lead from {upcaster.source}")
        steps[upcaster.source] = upcaster
    return steps
