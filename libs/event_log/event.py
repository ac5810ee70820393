"""What an event is: the envelope that every service's log shares."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from google.protobuf.message import Message

from libs.event_log.upcasting import Upcaster, ways_to_newest


@dataclass(frozen=True, slots=True)
class EventType:
    """A registered event type.

    `name` is past tense with its version (`sync.job.queued.v1`), never a Python path; `payload` is the protobuf message
    that it carries. A reader that doesn't know a type stops, unless the event says `may_ignore`.
    """

    name: str
    payload: type[Message]
    may_ignore: bool = False


class UnknownEventTypeError(LookupError):
    """An event's type isn't registered here and the event doesn't allow passing over it."""

    def __init__(self, type_name: str) -> None:
        super().__init__(f"event type {type_name!r} is not registered in this version")
        self.type_name = type_name


class EventTypes:
    """The event types that a service knows, by name and by payload class, and how old versions become new ones.

    EventEvolutionError when some registered version has no way to the newest. Only the newest is written.
    """

    def __init__(self, types: Iterable[EventType], upcasters: Iterable[Upcaster] = ()) -> None:
        self._by_name: dict[str, EventType] = {}
        payloads: dict[type[Message], EventType] = {}
        for event_type in types:
            if event_type.name in self._by_name or event_type.payload in payloads:
                raise ValueError(f"event type {event_type.name} or its payload is registered twice")
            self._by_name[event_type.name] = event_type
            payloads[event_type.payload] = event_type
        ways = ways_to_newest(self._by_name, upcasters)
        self._decoders = {name: _decoder(self._by_name[name].payload, way) for name, way in ways.items()}
        self._by_payload = {payload: known for payload, known in payloads.items() if not ways[known.name]}

    @property
    def names(self) -> Sequence[str]:
        """Every registered version of every type."""
        return tuple(self._by_name)

    def get(self, name: str) -> EventType | None:
        return self._by_name.get(name)

    def of_payload(self, payload: Message) -> EventType:
        """KeyError for a payload of an old version, which nobody writes any more."""
        return self._by_payload[type(payload)]

    def of_class(self, payload: type[Message]) -> EventType:
        return self._by_payload[payload]

    def decode(self, event: RecordedEvent) -> Message | None:
        """The typed payload in its newest version; None for an unknown type that may be ignored."""
        decode = self._decoders.get(event.type)
        if decode is None:
            if event.may_ignore:
                return None
            raise UnknownEventTypeError(event.type)
        return decode(event.payload)

    def new_event(self, payload: Message, *, actor: str, **context: Any) -> NewEvent:
        """An event that carries `payload`, ready to append. `context`: the other fields of `NewEvent`."""
        event_type = self.of_payload(payload)
        return NewEvent(
            type=event_type.name,
            payload=payload.SerializeToString(deterministic=True),
            actor=actor,
            may_ignore=event_type.may_ignore,
            **context,
        )


def _decoder(payload: type[Message], way: Sequence[Upcaster]) -> Callable[[bytes], Message]:
    if not way:
        return payload.FromString
    upcasts = [step.upcast for step in way]

    def decode(stored: bytes) -> Message:
        message: Message = payload.FromString(stored)
        for upcast in upcasts:
            message = upcast(message)
        return message

    return decode


class NewEvent(msgspec.Struct, frozen=True, gc=False):
    """An event before it is recorded. `actor` comes from the authenticated identity, never from the client's words."""

    type: str
    payload: bytes
    actor: str
    may_ignore: bool = False
    on_behalf_of: str = ""
    reason: str = ""
    correlation_id: str = ""
    causation_id: str = ""


class RecordedEvent(msgspec.Struct, frozen=True, gc=False):
    """An event as the log holds it. `recorded_ns` is the server's clock, nanoseconds since the epoch, UTC."""

    position: int
    stream: str
    revision: int
    type: str
    event_id: str
    recorded_ns: int
    actor: str
    payload: bytes
    hash: bytes
    may_ignore: bool = False
    on_behalf_of: str = ""
    reason: str = ""
    correlation_id: str = ""
    causation_id: str = ""

    def __repr__(self) -> str:
        return f"RecordedEvent({self.position}, {self.stream!r}, {self.revision}, {self.type!r}, by {self.actor!r})"
