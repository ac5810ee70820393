"""Why read models stop."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from libs.event_log.event import RecordedEvent
from libs.event_log.read_model import ReadModelWriter
from libs.event_log.store import EventStoreError, LogDiskFullError


@dataclass(frozen=True, slots=True)
class ProjectionFailure:
    """Where the read models stopped and why. Events before `position` are in them."""

    projection: str
    position: int
    event_type: str
    detail: str


class ProjectionStoppedError(EventStoreError):
    """The read models stopped before the event that a reader needs."""

    def __init__(self, failure: ProjectionFailure) -> None:
        super().__init__(
            f"the read model {failure.projection} stopped at event {failure.position} ({failure.event_type}):"
            f" {failure.detail}"
        )
        self.failure = failure


_NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)


class ReadModelsFullError(LogDiskFullError):
    """The disk of the read models is full. Nothing is wrong with them: they go on as soon as there is room."""


def without_room(error: BaseException) -> ReadModelsFullError | None:
    """What a refusal of SQLite's is when the disk is full; None for any other error."""
    if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", None) in _NO_ROOM:
        return ReadModelsFullError("the disk of the read models is full")
    return None


def failure_of(writer: ReadModelWriter, page: Sequence[RecordedEvent], error: BaseException) -> ProjectionFailure:
    """What happened, when taking `page` into the rows raised `error`."""
    event = writer.at.event if writer.at is not None else page[0]
    name = writer.at.projection if writer.at is not None else "checkpoint"
    return ProjectionFailure(name, event.position, event.type, f"{type(error).__name__}: {error}")
