"""The names of the secrets, as the log tells them: a keyring can't be listed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from labferry.events.v1 import secret_events_pb2 as facts
from libs.event_log.event import RecordedEvent
from libs.event_log.store import EventStore
from services.secrets.events import EVENT_TYPES, SECRET_CHANGE_FAILED, SECRET_DELETED, SECRET_SET
from services.secrets.secret_id import SecretId


@dataclass(frozen=True, slots=True)
class KnownName:
    """`set_ns`: when it was last set through this service, ns since the epoch; None when another program did."""

    secret: SecretId
    set_ns: int | None


class NamesSoFar:
    """Which names are set after a number of events. Pure fold."""

    def __init__(self) -> None:
        self._set_ns: dict[SecretId, int] = {}
        self._before: dict[SecretId, int | None] = {}

    def apply(self, event: RecordedEvent) -> None:
        match EVENT_TYPES.decode(event):
            case facts.SecretSet() as fact:
                self._note(SecretId(fact.service, fact.username), event.recorded_ns)
            case facts.SecretDeleted() as fact:
                self._note(SecretId(fact.service, fact.username), None)
            case facts.SecretChangeFailed() as fact:
                secret = SecretId(fact.service, fact.username)
                self._note(secret, self._before.get(secret))

    def _note(self, secret: SecretId, set_ns: int | None) -> None:
        self._before[secret] = self._set_ns.get(secret)
        if set_ns is None:
            self._set_ns.pop(secret, None)
        else:
            self._set_ns[secret] = set_ns

    def of_service(self, service: str) -> Mapping[str, int]:
        """Username → when it was set."""
        return {s.username: at for s, at in self._set_ns.items() if s.service == service}


def merge_names(service: str, from_log: Mapping[str, int], in_file: Iterable[str]) -> Sequence[KnownName]:
    """Every name that log or file knows, sorted by username."""
    usernames = sorted({*from_log, *in_file})
    return [KnownName(SecretId(service, username), from_log.get(username)) for username in usernames]


class LogNames:
    """The fold over this service's log, caught up at each question with what was recorded since the last."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._names = NamesSoFar()
        self._position = 0
        self._one_at_a_time = asyncio.Lock()

    async def of_service(self, service: str) -> Mapping[str, int]:
        async with self._one_at_a_time:
            head = self._store.head
            types = (SECRET_SET, SECRET_DELETED, SECRET_CHANGE_FAILED)
            async for page in self._store.read(self._position, upto=head, types=types):
                for event in page:
                    self._names.apply(event)
                    self._position = event.position
            self._position = head
            return self._names.of_service(service)
