"""A staged run as the event log knows it: single steps forward, and what keeps it from the next (SPEC §8). Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from google.protobuf.message import Message

from labferry.events.v1 import staging_events_pb2 as events
from labferry.sync.v1 import staging_service_pb2
from libs.run_tree.ingest_record import StagingState
from libs.run_tree.run_path import RunKind
from libs.service_kit.enum_names import ProtoNames
from services.sync_engine.runs.run_kinds import RUN_KINDS


class StagingHold(StrEnum):
    """What keeps a staged run from its next state."""

    STALLED = "stalled"
    EQUIPMENT_NOT_CONFIGURED = "equipment_not_configured"
    BLOCKED = "blocked"
    UNUSABLE = "unusable"
    ELSEWHERE = "elsewhere"
    GONE = "gone"


HOLDS = ProtoNames(StagingHold, staging_service_pb2.StagingHold, "STAGING_HOLD")
STATES = ProtoNames(StagingState, staging_service_pb2.StagingState, "STAGING_STATE")


@dataclass(frozen=True, slots=True)
class Held:
    """`detail` is one plain sentence."""

    hold: StagingHold
    detail: str


@dataclass(frozen=True, slots=True)
class Step:
    """A state that was reached, when, and on which host."""

    state: StagingState
    at: datetime
    host: str


@dataclass(frozen=True, slots=True)
class StagedRun:
    """`steps` are the states that it went through, in order; none: the log says nothing about it. Counts are those of
    its data files as it became complete."""

    run: str
    equipment_id: str = ""
    project: str = ""
    run_kind: RunKind = RunKind.EXPERIMENTAL
    steps: tuple[Step, ...] = ()
    held: Held | None = None
    file_count: int = 0
    byte_count: int = 0
    job_ids: tuple[str, ...] = ()
    nas_path: str = ""
    revision: int = -1

    @property
    def state(self) -> StagingState | None:
        """None before it was discovered."""
        return self.steps[-1].state if self.steps else None

    def reached(self, state: StagingState) -> datetime | None:
        """When; None when it hasn't been."""
        return next((step.at for step in self.steps if step.state is state), None)


class StagingHistoryError(ValueError):
    """An event that doesn't follow on what was recorded before it."""


def may_step(record: StagedRun, state: StagingState) -> bool:
    """Whether `state` is the very next one."""
    return len(record.steps) == state.step


def evolve(record: StagedRun, event: Message, at: datetime) -> StagedRun:
    """The run after one more event of its stream. StagingHistoryError."""
    return replace(_after(record, event, at), revision=record.revision + 1)


def _after(record: StagedRun, event: Message, at: datetime) -> StagedRun:
    match event:
        case events.StagingDiscovered():
            kind = RUN_KINDS.from_proto(event.run_kind)
            found = replace(record, equipment_id=event.equipment_id, project=event.project, run_kind=kind)
            return _stepped(found, StagingState.STAGING, at, event.host)
        case events.StagingCompleted():
            counted = replace(record, file_count=event.file_count, byte_count=event.byte_count)
            return _stepped(counted, StagingState.COMPLETE, at, event.host)
        case events.StagingQueued():
            queued = replace(record, job_ids=tuple(event.job_ids))
            return _stepped(queued, StagingState.SYNC_QUEUED, at, event.host)
        case events.StagingVerified():
            verified = replace(record, nas_path=event.nas_path)
            return _stepped(verified, StagingState.SYNC_VERIFIED, at, event.host)
        case events.StagingCleared():
            return _stepped(record, StagingState.CLEARED, at, event.host)
        case events.StagingHeld():
            hold = HOLDS.get(event.hold)
            return replace(record, held=None if hold is None else Held(hold, event.detail))
        case _:
            return record


def _stepped(record: StagedRun, state: StagingState, at: datetime, host: str) -> StagedRun:
    if not may_step(record, state):
        raise StagingHistoryError(f"{record.run} can't be {state} after {record.state or 'nothing'}")
    return replace(record, steps=(*record.steps, Step(state, at, host)), held=None)
