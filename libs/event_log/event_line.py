"""An event as a line of JSON, in exports and backups: verbatim for the hash chain, and readable for people."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from google.protobuf import symbol_database
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError, Message

from libs.event_log.event import EventTypes, RecordedEvent
from libs.event_log.named_blobs import blobs_in

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class EventLineError(ValueError):
    """A line that holds no event."""


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`payload_type`, `payload_json`, `blobs` and `recorded_time` say what other fields hold; the hash covers those."""

    position: int
    stream: str
    revision: int
    type: str
    event_id: str
    recorded_ns: int
    recorded_time: str
    actor: str
    on_behalf_of: str
    reason: str
    correlation_id: str
    causation_id: str
    may_ignore: bool
    payload: str
    payload_type: str
    payload_json: Any
    blobs: Sequence[str]
    hash: str


_decoder = msgspec.json.Decoder(_Line)
_encoder = msgspec.json.Encoder()


def to_line(event: RecordedEvent, event_types: EventTypes) -> bytes:
    """One line, with its end. A payload whose type isn't registered, or that can't be decoded, stays bytes alone."""
    payload_type, payload_json, blobs = "", None, tuple[str, ...]()
    event_type = event_types.get(event.type)
    if event_type is not None:
        payload_type = event_type.payload.DESCRIPTOR.full_name
        try:
            message = event_type.payload.FromString(event.payload)
            payload_json = MessageToDict(message, preserving_proto_field_name=True)
            blobs = tuple(blobs_in(event_type.payload, event.payload))
        except DecodeError:
            payload_json = None
    line = _Line(
        position=event.position,
        stream=event.stream,
        revision=event.revision,
        type=event.type,
        event_id=event.event_id,
        recorded_ns=event.recorded_ns,
        recorded_time=f"{_EPOCH + timedelta(microseconds=event.recorded_ns // 1000):%Y-%m-%dT%H:%M:%S.%fZ}",
        actor=event.actor,
        on_behalf_of=event.on_behalf_of,
        reason=event.reason,
        correlation_id=event.correlation_id,
        causation_id=event.causation_id,
        may_ignore=event.may_ignore,
        payload=base64.b64encode(event.payload).decode(),
        payload_type=payload_type,
        payload_json=payload_json,
        blobs=blobs,
        hash=event.hash.hex(),
    )
    return _encoder.encode(line) + b"\n"


def from_line(line: bytes) -> tuple[RecordedEvent, Sequence[str]]:
    """The event, and the digests of the blobs that it names. EventLineError.

    The digests are read from the payload itself where its type is known to this process, else from the line.
    """
    try:
        read = _decoder.decode(line)
        payload, digest = base64.b64decode(read.payload, validate=True), bytes.fromhex(read.hash)
        blobs = _blobs(read, payload)
    except (msgspec.DecodeError, ValueError, DecodeError) as error:
        raise EventLineError(f"no event can be read: {error}") from error
    event = RecordedEvent(
        position=read.position,
        stream=read.stream,
        revision=read.revision,
        type=read.type,
        event_id=read.event_id,
        recorded_ns=read.recorded_ns,
        actor=read.actor,
        payload=payload,
        hash=digest,
        may_ignore=read.may_ignore,
        on_behalf_of=read.on_behalf_of,
        reason=read.reason,
        correlation_id=read.correlation_id,
        causation_id=read.causation_id,
    )
    return event, blobs


def _blobs(line: _Line, payload: bytes) -> Sequence[str]:
    try:
        known: type[Message] = symbol_database.Default().GetSymbol(line.payload_type)
    except KeyError:
        return line.blobs
    return blobs_in(known, payload)
