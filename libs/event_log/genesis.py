"""The first event of every log: it names the store."""

from __future__ import annotations

from labferry.events.v1.log_events_pb2 import StoreCreated
from libs.event_log.event import EventType, EventTypes
from libs.event_log.store import Expected, StreamAppend

SYSTEM_ACTOR = "system"
LOG_STREAM = "log"
STORE_CREATED = EventType("log.store_created.v1", StoreCreated)
LOG_EVENT_TYPES = (STORE_CREATED,)
"""Every service's `EventTypes` holds these beside its own."""


def genesis(store_id: str, service: str, version: str) -> StreamAppend:
    """The append that makes an empty log a log."""
    created = StoreCreated(store_id=store_id, service=service, version=version)
    event = EventTypes(LOG_EVENT_TYPES).new_event(created, actor=SYSTEM_ACTOR)
    return StreamAppend(LOG_STREAM, Expected.NONE, (event,))
