"""How an append becomes recorded events: the part that every store in this process shares."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass

from libs.event_log.event import NewEvent, RecordedEvent
from libs.event_log.hash_chain import FIRST_PREVIOUS_HASH, next_hash
from libs.event_log.store import (
    MAX_PAYLOAD_BYTES,
    EventTooLargeError,
    Expected,
    InvalidEventError,
    RequestKey,
    RevisionConflictError,
    StreamAppend,
)
from libs.event_log.uuid7 import Uuid7Source

NO_REVISION = -1
"""Stands for a stream that doesn't exist, so that the first event's revision is one more."""


@dataclass(frozen=True, slots=True)
class LogHead:
    """The end of a log: what its next event is chained to."""

    position: int = 0
    hash: bytes = FIRST_PREVIOUS_HASH
    recorded_ns: int = 0


def check_appends(appends: Sequence[StreamAppend], request: RequestKey | None) -> None:
    """Refuses what no store takes, whatever its state: EventTooLargeError, InvalidEventError."""
    if request is not None:
        _check_text("request_id", request.request_id, required=True)
    for append in appends:
        _check_text("stream", append.stream, required=True)
        for event in append.events:
            if not _is_plain(event):
                _check_texts(event)
            if len(event.payload) > MAX_PAYLOAD_BYTES:
                raise EventTooLargeError(event.type, len(event.payload))


def _is_plain(event: NewEvent) -> bool:
    """Whether nothing can be wrong with its texts: seen at one look at nearly every event."""
    texts = event.type + event.actor + event.on_behalf_of + event.reason + event.correlation_id + event.causation_id
    return bool(event.type and event.actor) and texts.isascii() and "\0" not in texts


def _check_texts(event: NewEvent) -> None:
    _check_text("type", event.type, required=True)
    _check_text("actor", event.actor, required=True)
    _check_text("on_behalf_of", event.on_behalf_of)
    _check_text("reason", event.reason)
    _check_text("correlation_id", event.correlation_id)
    _check_text("causation_id", event.causation_id)


def _check_text(field: str, text: str, *, required: bool = False) -> None:
    if text:
        # PostgreSQL holds no NUL in text, and a log must be movable between stores.
        if "\0" in text:
            raise InvalidEventError(field, "holds a NUL character")
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise InvalidEventError(field, "is not valid Unicode") from error
    elif required:
        raise InvalidEventError(field, "is empty")


class Recorder:
    """Gives one batch of appends their places, identities and hashes.

    Nothing is kept: the owner commits what `record` returned and takes over `head` and `revisions` afterwards, or drops
    the recorder. `revisions` must hold the last revision of each existing stream that the batch names.
    """

    def __init__(
        self, store_id: str, head: LogHead, revisions: MutableMapping[str, int], ids: Uuid7Source, now_ns: int
    ) -> None:
        self._store_id = store_id
        self._ids = ids
        self._position = head.position
        self._hash = head.hash
        self.revisions = revisions
        # The clock may step back; the order of the log must not.
        self._recorded_ns = max(now_ns, head.recorded_ns)

    @property
    def head(self) -> LogHead:
        """The end of the log with everything recorded so far."""
        return LogHead(self._position, self._hash, self._recorded_ns)

    def record(self, appends: Sequence[StreamAppend]) -> list[RecordedEvent]:
        """Events of one append. RevisionConflictError leaves the recorder as it was."""
        own: dict[str, int] = {}
        events: list[RecordedEvent] = []
        position, previous = self._position, self._hash
        store_id, recorded_ns, new_id = self._store_id, self._recorded_ns, self._ids.next
        for append in appends:
            stream = append.stream
            revision = own.get(stream)
            if revision is None:
                revision = self.revisions.get(stream, NO_REVISION)
            # Most appends name the exact revision; whatever else they say is for the function.
            if append.expected != revision or revision == NO_REVISION:
                _check_expected(append, revision)
            for content in append.events:
                position += 1
                revision += 1
                event_id = new_id(recorded_ns)
                previous = next_hash(previous, store_id, position, stream, revision, event_id, recorded_ns, content)
                events.append(
                    RecordedEvent(
                        position,
                        stream,
                        revision,
                        content.type,
                        event_id,
                        recorded_ns,
                        content.actor,
                        content.payload,
                        previous,
                        content.may_ignore,
                        content.on_behalf_of,
                        content.reason,
                        content.correlation_id,
                        content.causation_id,
                    )
                )
            own[stream] = revision
        if events:
            self._position, self._hash = position, previous
            self.revisions.update(own)
        return events


def _check_expected(append: StreamAppend, revision: int) -> None:
    expected = append.expected
    exists = revision != NO_REVISION
    if expected is Expected.ANY:
        met = True
    elif expected is Expected.NONE:
        met = not exists
    elif expected is Expected.EXISTS:
        met = exists
    else:
        met = exists and revision == expected
    if not met:
        raise RevisionConflictError(append.stream, expected, revision if exists else None)
