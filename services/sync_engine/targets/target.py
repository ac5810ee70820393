"""A destination as the event log knows it: what it does with names, and whether it is to be trusted. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from google.protobuf.message import Message

from labferry.events.v1 import equipment_events_pb2 as events
from labferry.sync.v1 import equipment_service_pb2

SUSPICIOUS_FILES = 3
"""So many different files that were wrong twice are no accident of a file (ARCHITECTURE §4, Mismatch)."""


@dataclass(frozen=True, slots=True)
class Target:
    """`doubted` are files that were read back wrong twice since the destination was last trusted, relative to
    local_root; `attempts` those that ever found one, as (job, attempt). `revision` -1: the log says nothing."""

    equipment_id: str
    destination: str
    probe: equipment_service_pb2.DestinationProbe | None = None
    probed: datetime | None = None
    doubted: tuple[str, ...] = ()
    attempts: tuple[tuple[str, int], ...] = ()
    revision: int = -1

    @property
    def is_suspected(self) -> bool:
        return len(self.doubted) >= SUSPICIOUS_FILES


def evolve(target: Target, event: Message, at: datetime) -> Target:
    """The destination after one more event of its stream."""
    target = replace(target, revision=target.revision + 1)
    match event:
        case events.DestinationProbed():
            return replace(target, probe=event.probe, probed=at)
        case events.DestinationDoubted():
            files = tuple(dict.fromkeys((*target.doubted, *event.paths)))
            return replace(target, doubted=files, attempts=(*target.attempts, (event.job_id, event.attempt)))
        case events.DestinationTrusted():
            return replace(target, doubted=())
        case _:
            return target


def why_suspected(target: Target) -> str:
    """One plain sentence for people; empty when it is trusted."""
    if not target.is_suspected:
        return ""
    return (
        f"{target.destination} is under suspicion: {len(target.doubted)} files were read back wrong twice, the last of"
        f" them {target.doubted[-1]}; look at the storage, then trust it again"
    )
