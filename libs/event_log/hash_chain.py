"""The hash chain that makes a change of the log evident.

The hash of an event is SHA-256 over the 32 bytes of its predecessor's hash followed by its own canonical bytes; the
first event's predecessor is 32 zero bytes. Canonical bytes are these fifteen fields, in this order, each as a four-byte
big-endian length and then so many bytes:

     1 layout          the text "labferry.event.v1"
     2 store_id        text
     3 position        integer
     4 stream          text
     5 revision        integer
     6 type            text
     7 event_id        text
     8 recorded_ns     integer
     9 actor           text
    10 on_behalf_of    text, empty when absent
    11 reason          text, empty when absent
    12 correlation_id  text, empty when absent
    13 causation_id    text, empty when absent
    14 may_ignore      one byte, 0 or 1
    15 payload         the stored bytes, verbatim

Text is UTF-8. An integer is eight bytes, big-endian two's complement, so its length field says 8. PostgreSQL makes the
same bytes with int4send, int8send, octet_length and convert_to(…, 'UTF8').
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from libs.event_log.event import RecordedEvent

FIRST_PREVIOUS_HASH = bytes(32)
LAYOUT = b"labferry.event.v1"

_sha256 = hashlib.sha256
_length = struct.Struct(">I").pack
_integer = struct.Struct(">Iq").pack
_LAYOUT_FIELD = _length(len(LAYOUT)) + LAYOUT
_FLAG_FIELDS = (_length(1) + b"\x00", _length(1) + b"\x01")


class EventContent(Protocol):
    """What an event says, before or after it has its place in the log."""

    @property
    def type(self) -> str: ...
    @property
    def actor(self) -> str: ...
    @property
    def on_behalf_of(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def correlation_id(self) -> str: ...
    @property
    def causation_id(self) -> str: ...
    @property
    def may_ignore(self) -> bool: ...
    @property
    def payload(self) -> bytes: ...


def canonical_bytes(
    store_id: str,
    position: int,
    stream: str,
    revision: int,
    event_id: str,
    recorded_ns: int,
    content: EventContent,
) -> bytes:
    """The bytes of an event that its hash covers. UnicodeEncodeError for text that UTF-8 can't hold."""
    return _hashed_bytes(b"", store_id, position, stream, revision, event_id, recorded_ns, content)


def next_hash(
    previous: bytes,
    store_id: str,
    position: int,
    stream: str,
    revision: int,
    event_id: str,
    recorded_ns: int,
    content: EventContent,
) -> bytes:
    """The hash of an event from its predecessor's hash, its place and its content."""
    return _sha256(
        _hashed_bytes(previous, store_id, position, stream, revision, event_id, recorded_ns, content)
    ).digest()


def _hashed_bytes(
    previous: bytes,
    store_id: str,
    position: int,
    stream: str,
    revision: int,
    event_id: str,
    recorded_ns: int,
    content: EventContent,
) -> bytes:
    identifier, correlation, payload = event_id.encode(), content.correlation_id.encode(), content.payload
    return b"".join(
        (
            previous,
            _LAYOUT_FIELD,
            _recurring(store_id),
            _integer(8, position),
            _recurring(stream),
            _integer(8, revision),
            _recurring(content.type),
            _length(len(identifier)),
            identifier,
            _integer(8, recorded_ns),
            _recurring(content.actor),
            _recurring(content.on_behalf_of),
            _recurring(content.reason),
            _length(len(correlation)),
            correlation,
            _recurring(content.causation_id),
            _FLAG_FIELDS[content.may_ignore],
            _length(len(payload)),
            payload,
        )
    )


@lru_cache(maxsize=4096)
def _recurring(text: str) -> bytes:
    """A text field that often comes again: most are empty, or one of a few names."""
    encoded = text.encode()
    return _length(len(encoded)) + encoded


def event_hash(store_id: str, previous: bytes, event: RecordedEvent) -> bytes:
    """What the hash of a recorded event must be."""
    return next_hash(
        previous, store_id, event.position, event.stream, event.revision, event.event_id, event.recorded_ns, event
    )


@dataclass(frozen=True, slots=True)
class ChainBreak:
    """The first place where a log contradicts itself."""

    position: int
    reason: str


class ChainCheck:
    """Checks events in order, page by page. `hash` is that of the last good event, `checked` counts good ones."""

    def __init__(self, store_id: str, *, first_position: int = 1, previous: bytes = FIRST_PREVIOUS_HASH) -> None:
        self._store_id = store_id
        self._next_position = first_position
        self.hash = previous
        self.checked = 0

    def check(self, events: Iterable[RecordedEvent]) -> ChainBreak | None:
        """Goes on with further events; the first break found, or None."""
        for event in events:
            if event.position > self._next_position:
                return ChainBreak(
                    self._next_position, f"no event has position {self._next_position}; {event.position} follows"
                )
            if event.position < self._next_position:
                return ChainBreak(event.position, f"position {event.position} comes where {self._next_position} should")
            if event_hash(self._store_id, self.hash, event) != event.hash:
                return ChainBreak(
                    event.position,
                    "the event's hash doesn't follow from its predecessor's hash and its own content: this event, or"
                    " the stored hash of it or of its predecessor, was changed",
                )
            self.hash = event.hash
            self._next_position += 1
            self.checked += 1
        return None


def verify_chain(
    store_id: str, events: Iterable[RecordedEvent], *, first_position: int = 1, previous: bytes = FIRST_PREVIOUS_HASH
) -> ChainBreak | None:
    """Checks a run of consecutive events; the first bad position and why, or None when the chain holds."""
    return ChainCheck(store_id, first_position=first_position, previous=previous).check(events)
