"""A recorded event as the protobuf message that callers get."""

from __future__ import annotations

from labferry.events.v1 import event_pb2
from libs.event_log.event import EventTypes, RecordedEvent

_TYPE_URL = "type.googleapis.com/"
_UNKNOWN_TYPE_URL = "type.labferry.unknown/"


def add_message(batch: event_pb2.EventBatch, event: RecordedEvent, event_types: EventTypes) -> event_pb2.Event:
    """Adds an event to a batch. A payload whose type isn't registered is passed on as it is."""
    message = batch.events.add(
        position=event.position,
        stream=event.stream,
        revision=event.revision,
        type=event.type,
        event_id=event.event_id,
        actor=event.actor,
        on_behalf_of=event.on_behalf_of,
        reason=event.reason,
        correlation_id=event.correlation_id,
        causation_id=event.causation_id,
        may_ignore=event.may_ignore,
        hash=event.hash,
    )
    seconds, nanos = divmod(event.recorded_ns, 1_000_000_000)
    message.recorded_time.seconds, message.recorded_time.nanos = seconds, nanos
    event_type = event_types.get(event.type)
    if event_type is None:
        message.payload.type_url = _UNKNOWN_TYPE_URL + event.type
    else:
        message.payload.type_url = _TYPE_URL + event_type.payload.DESCRIPTOR.full_name
    message.payload.value = event.payload
    return message
