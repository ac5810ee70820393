"""What golden logs are made from: named histories of one service, written once and kept for good."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from labferry.events.v1.log_events_pb2 import CallsRefused, LogBackedUp, LogExported
from libs.event_log.event import EventTypes, RecordedEvent
from libs.event_log.genesis import LOG_STREAM
from libs.event_log.sqlite_store import SqliteEventStore

Json = Any


@dataclass(frozen=True)
class Fact:
    """One event to record."""

    stream: str
    payload: Message
    actor: str = "operator-1"
    reason: str = ""
    correlation_id: str = ""


LOG_COPIES = (
    Fact(LOG_STREAM, LogExported(first_position=1, last_position=3), reason="audit"),
    Fact(LOG_STREAM, LogBackedUp(), correlation_id="c-9"),
)
"""What any service's log may hold besides its own events."""

REFUSED_CALLS = (
    Fact(LOG_STREAM, CallsRefused(method="/a.B/C", host="ipv4:10.0.0.7", reason="IDENTITY_REQUIRED", count=1)),
    Fact(LOG_STREAM, CallsRefused(method="/a.B/C", actor="asmith", host="unix", reason="ROLE_REQUIRED", count=12)),
)


@dataclass(frozen=True)
class Scenario:
    """A history under a name that no other scenario of the service has. Once its log is written, neither changes."""

    name: str
    facts: Sequence[Fact]


StateAfter = Callable[[SqliteEventStore, RecordedEvent], Awaitable[Json]]
ReadModels = Callable[[SqliteEventStore, Path], Awaitable[Mapping[str, Json]]]


@dataclass(frozen=True)
class GoldenService:
    """A service's event types and scenarios, and the states that its real folds and read models make of a log.

    `state_after`: what an event's stream says once that event is in it. `read_models`: everything after the last event,
    made under a folder of the caller's.
    """

    name: str
    event_types: EventTypes
    scenarios: Sequence[Scenario]
    state_after: StateAfter
    read_models: ReadModels
