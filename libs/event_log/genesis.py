"""The log's own events: the first one of every log, which names the store; each copy given away; refused calls."""

from __future__ import annotations

from collections.abc import Sequence

from labferry.events.v1.log_events_pb2 import CallsRefused, LogBackedUp, LogExported, StoreCreated
from libs.event_log.event import EventType, EventTypes, NewEvent
from libs.event_log.store import Expected, StreamAppend

SYSTEM_ACTOR = "system"
LOG_STREAM = "log"
STORE_CREATED = EventType("log.store_created.v1", StoreCreated)
LOG_EXPORTED = EventType("log.exported.v1", LogExported, may_ignore=True)
LOG_BACKED_UP = EventType("log.backed_up.v1", LogBackedUp, may_ignore=True)
CALLS_REFUSED = EventType("log.calls_refused.v1", CallsRefused, may_ignore=True)
LOG_EVENT_TYPES = (STORE_CREATED, LOG_EXPORTED, LOG_BACKED_UP, CALLS_REFUSED)
"""Every service's `EventTypes` holds these beside its own."""

_TYPES = EventTypes(LOG_EVENT_TYPES)


def genesis(store_id: str, service: str, version: str) -> StreamAppend:
    """The append that makes an empty log a log."""
    return StreamAppend(
        LOG_STREAM, Expected.NONE, (genesis_event(StoreCreated(store_id=store_id, service=service, version=version)),)
    )


def genesis_event(created: StoreCreated) -> NewEvent:
    return _TYPES.new_event(created, actor=SYSTEM_ACTOR)


def copy_record(payload: LogExported | LogBackedUp, *, actor: str, reason: str, correlation_id: str) -> StreamAppend:
    """The append that says who is given a copy of the log, before it is given."""
    event = _TYPES.new_event(payload, actor=actor, reason=reason, correlation_id=correlation_id)
    return StreamAppend(LOG_STREAM, Expected.EXISTS, (event,))


def calls_refused(facts: Sequence[CallsRefused]) -> StreamAppend:
    """The append that says which calls were refused."""
    return StreamAppend(
        LOG_STREAM, Expected.EXISTS, [_TYPES.new_event(fact, actor=fact.actor or SYSTEM_ACTOR) for fact in facts]
    )
