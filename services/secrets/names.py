"""What is known of secrets without their values, from this service's log and from the places that can be listed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from libs.event_log.store import EventStore
from services.secrets.history import TOLD_BY, HistoriesSoFar, SecretHistory
from services.secrets.secret_id import SecretId


@dataclass(frozen=True, slots=True)
class KnownName:
    """`history`: what this service did to it; without a present version, another program set what is kept."""

    secret: SecretId
    history: SecretHistory


@dataclass(frozen=True, slots=True)
class RotationDate:
    """By when what is kept under a name is to be replaced, nanoseconds since the epoch."""

    secret: SecretId
    rotate_by_ns: int


def merge_names(
    service: str, from_log: Mapping[str, SecretHistory], in_file: Iterable[str], histories: HistoriesSoFar
) -> Sequence[KnownName]:
    """Every name that log or file knows, sorted by username."""
    secrets = [SecretId(service, username) for username in sorted({*from_log, *in_file})]
    return [KnownName(secret, histories.of(secret)) for secret in secrets]


class LogHistories:
    """The fold over this service's log, caught up at each question with what was recorded since the last."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._so_far = HistoriesSoFar()
        self._position = 0
        self._one_at_a_time = asyncio.Lock()

    async def now(self) -> HistoriesSoFar:
        """As the log tells it now."""
        async with self._one_at_a_time:
            head = self._store.head
            async for page in self._store.read(self._position, upto=head, types=TOLD_BY):
                for event in page:
                    self._so_far.apply(event)
                    self._position = event.position
            self._position = head
            return self._so_far
