"""Why read models stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from libs.event_log.event import RecordedEvent
from libs.event_log.read_model import ReadModelWriter
from libs.event_log.store import EventStoreError


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


def failure_of(writer: ReadModelWriter, page: Sequence[RecordedEvent], error: BaseException) -> ProjectionFailure:
    """What happened, when taking `page` into the rows raised `error`."""
    event = writer.at.event if writer.at is not None else page[0]
    name = writer.at.projection if writer.at is not None else "checkpoint"
    return ProjectionFailure(name, event.position, event.type, f"{type(error).__name__}: {error}")
