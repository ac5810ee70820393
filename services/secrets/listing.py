"""Answers what is known of secrets without their values, and follows it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime

from libs.service_kit.errors import UnavailableError
from services.secrets.access import may_know_date
from services.secrets.audit import Asker, Audit
from services.secrets.history import SecretHistory, Version
from services.secrets.names import KnownName, LogHistories, RotationDate, merge_names
from services.secrets.secret_id import SecretId
from services.secrets.vault import Vault

_NS_A_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Standing:
    """How the store stands. `dates` are sorted."""

    sealed: bool
    dates: tuple[RotationDate, ...]


class Listing:
    """Names, versions and dates. `news` is to be called whenever one of them, or the seal, may have changed."""

    def __init__(
        self,
        vault: Vault,
        histories: LogHistories,
        audit: Audit,
        draining: asyncio.Event,
        clock: Callable[[], datetime],
    ) -> None:
        self._vault = vault
        self._histories = histories
        self._audit = audit
        self._draining = draining
        self._clock = clock
        self._watchers: set[asyncio.Event] = set()

    async def names(self, service: str, by: Asker) -> Sequence[KnownName]:
        """The names that the log and the file know, sorted. SealedError while the file can't be asked."""
        kept = await self._vault.names_kept(service)
        histories = await self._histories.now()
        from_log = histories.present(service)
        if kept.are_all:
            # What the log remembers and the store lacks was removed by another program.
            from_log = {username: history for username, history in from_log.items() if username in kept.usernames}
        await self._audit.names_listed(by, service)
        return merge_names(service, from_log, kept.usernames, histories)

    async def name(self, secret: SecretId) -> KnownName:
        return KnownName(secret, (await self._histories.now()).of(secret))

    async def versions(self, secret: SecretId, by: Asker) -> Sequence[Version]:
        """The newest first."""
        await self._audit.names_listed(by, secret.service)
        return (await self._histories.now()).of(secret).versions[::-1]

    def is_overdue(self, history: SecretHistory) -> bool:
        """Now."""
        return history.is_overdue(round(self._clock().timestamp() * _NS_A_SECOND))

    def news(self) -> None:
        for watcher in self._watchers:
            watcher.set()

    async def follow(self, by: Asker) -> AsyncGenerator[Standing, None]:
        """How it is now, then after each change. Ends with UnavailableError when the service ends."""
        await self._audit.names_listed(by, "")
        news, told = asyncio.Event(), None
        with ExitStack() as watching:
            self._watchers.add(news)
            watching.callback(self._watchers.discard, news)
            while not self._draining.is_set():
                news.clear()
                standing = await self._standing(by)
                if standing != told:
                    yield standing
                    told = standing
                await self._either(news)
        raise UnavailableError("the service is ending", metadata={"dependency": "secrets"})

    async def _standing(self, by: Asker) -> Standing:
        dates = [
            RotationDate(secret, rotate_by_ns)
            for secret, rotate_by_ns in (await self._histories.now()).with_rotation_date()
            if may_know_date(by.roles, secret)
        ]
        return Standing(self._vault.sealed, tuple(sorted(dates, key=lambda date: date.secret.stream)))

    async def _either(self, news: asyncio.Event) -> None:
        """Until there is news, or the service ends."""
        waiting = {asyncio.create_task(news.wait()), asyncio.create_task(self._draining.wait())}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
