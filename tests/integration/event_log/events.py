"""Small events for tests of the log itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from google.protobuf import wrappers_pb2

from libs.event_log.event import EventType, EventTypes, NewEvent, RecordedEvent
from libs.event_log.genesis import LOG_EVENT_TYPES
from libs.event_log.store import Expected, StreamAppend

NOTED = EventType("test.noted.v1", wrappers_pb2.StringValue)
COUNTED = EventType("test.counted.v1", wrappers_pb2.Int64Value)
EVENT_TYPES = EventTypes((*LOG_EVENT_TYPES, NOTED, COUNTED))


def noted(text: str, **context: str) -> NewEvent:
    return EVENT_TYPES.new_event(wrappers_pb2.StringValue(value=text), actor="tester", **context)


def counted(number: int) -> NewEvent:
    return EVENT_TYPES.new_event(wrappers_pb2.Int64Value(value=number), actor="tester")


def to(stream: str, *events: NewEvent, expected: int | Expected = Expected.ANY) -> StreamAppend:
    return StreamAppend(stream, expected, events)


async def collect(pages: AsyncIterator[Sequence[RecordedEvent]]) -> list[RecordedEvent]:
    return [event async for page in pages for event in page]
