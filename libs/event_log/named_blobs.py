"""Which blobs an event names. The payload's own description says it, by the option `blob` on its fields."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from labferry.events.v1.blob_pb2 import blob
from libs.event_log.event import EventTypes, RecordedEvent


@lru_cache(maxsize=1024)
def blob_fields(payload: Descriptor) -> Sequence[str]:
    """Names of the fields of a payload that hold digests."""
    return tuple(field.name for field in payload.fields if field.GetOptions().Extensions[blob])


def blobs_in(payload: type[Message], stored: bytes) -> Sequence[str]:
    """Digests that a stored payload of this class names. DecodeError when it isn't one."""
    fields = blob_fields(payload.DESCRIPTOR)
    if not fields:
        return ()
    message = payload.FromString(stored)
    return tuple(digest for name in fields if (digest := getattr(message, name)))


def blobs_named_by(event: RecordedEvent, event_types: EventTypes) -> Sequence[str]:
    """Digests that an event names; none for a type that isn't registered."""
    event_type = event_types.get(event.type)
    return () if event_type is None else blobs_in(event_type.payload, event.payload)
