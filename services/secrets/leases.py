"""Leases: the right of one identity to read one secret for one piece of work, until that ends or its holder dies.

Grant, revocation and expiry are recorded before anybody is told. A renewal is not: it only says that the holder lives.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from libs.event_log.store import EventStoreError
from libs.service_kit.identity import OPERATORS
from services.secrets.audit import Asker, Audit, OpenLease, ReadRefusal
from services.secrets.errors import LeaseEnd, LeaseNotLiveError
from services.secrets.secret_id import SecretId
from services.secrets.secret_text import SecretText
from services.secrets.vault import Vault

_MOST_ENDS_KNOWN = 10_000
_NS_A_SECOND = 1_000_000_000
_LOG_PAUSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class LiveLease:
    """`expires`: when it ends unless it is renewed before."""

    lease: OpenLease
    granted: datetime
    expires: datetime


@dataclass(slots=True)
class _Running:
    lease: OpenLease
    ends_at: float
    """Of the loop's clock: a clock that is set makes no lease longer."""


class Leases:
    """The live leases, and one task that ends those which nobody renews. Begins with what the log left open, which
    gets one more term: who holds it may well be alive."""

    def __init__(
        self, vault: Vault, audit: Audit, term: timedelta, left_open: Sequence[OpenLease], clock: Callable[[], datetime]
    ) -> None:
        self._vault = vault
        self._audit = audit
        self._term = term
        self._clock = clock
        ends_at = self._next_end()
        self._running = {lease.lease_id: _Running(lease, ends_at) for lease in left_open}
        self._ended: OrderedDict[str, LeaseEnd] = OrderedDict()
        self._news = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()

    async def acquire(self, secret: SecretId, purpose: str, by: Asker) -> LiveLease:
        """Errors as `Vault.read`."""
        await self._vault.require_readable(secret, by)
        # A caller that goes away must not leave a grant in the log that nobody knows of.
        return await asyncio.shield(self._grant(secret, purpose, by))

    async def _grant(self, secret: SecretId, purpose: str, by: Asker) -> LiveLease:
        lease_id = uuid.uuid4().hex
        granted_ns = round(self._clock().timestamp() * _NS_A_SECOND)
        await self._audit.lease_granted(by, secret, lease_id, purpose)
        running = _Running(OpenLease(lease_id, secret, purpose, by.actor, granted_ns), self._next_end())
        self._running[lease_id] = running
        self._news.set()
        return self._shown(running)

    def renew(self, lease_id: str, by: Asker) -> LiveLease:
        """LeaseNotLiveError."""
        running = self._held(lease_id, by)
        running.ends_at = self._next_end()
        return self._shown(running)

    async def revoke(self, lease_id: str, reason: str, by: Asker) -> None:
        """LeaseNotLiveError, also when the caller neither holds it nor is an operator."""
        await asyncio.shield(self._revoke(lease_id, reason, by))

    async def _revoke(self, lease_id: str, reason: str, by: Asker) -> None:
        async with self._one_at_a_time:
            running = self._live(lease_id)
            if running.lease.holder != by.actor and OPERATORS.isdisjoint(by.roles):
                raise LeaseNotLiveError(lease_id, LeaseEnd.UNKNOWN)
            await self._audit.lease_revoked(by, running.lease.secret, lease_id, reason)
            self._end(lease_id, LeaseEnd.REVOKED)

    async def read(self, secret: SecretId, lease_id: str, by: Asker) -> SecretText:
        """The value. LeaseNotLiveError (recorded) unless the lease is the caller's and of this secret; others as
        `Vault.read`."""
        try:
            lease = self._held(lease_id, by).lease
            if lease.secret != secret:
                raise LeaseNotLiveError(lease_id, LeaseEnd.UNKNOWN)
        except LeaseNotLiveError:
            await self._audit.read_refused(by, secret, ReadRefusal.LEASE_NOT_LIVE, lease_id)
            raise
        return await self._vault.read(secret, by, lease_id)

    def is_holder(self, lease_id: str, by: Asker) -> bool:
        """Whether the caller holds this live lease."""
        running = self._running.get(lease_id)
        return running is not None and running.lease.holder == by.actor

    def live(self) -> Sequence[LiveLease]:
        """The oldest first."""
        now = asyncio.get_running_loop().time()
        running = [self._shown(r) for r in self._running.values() if r.ends_at > now]
        return sorted(running, key=lambda lease: lease.granted)

    @asynccontextmanager
    async def ending(self) -> AsyncIterator[None]:
        """Leases expire while it is entered."""
        expiring = asyncio.create_task(self._expire(), name="leases")
        try:
            yield
        finally:
            expiring.cancel()
            await asyncio.wait({expiring})

    async def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._news.clear()
            next_end = min((running.ends_at for running in self._running.values()), default=None)
            with suppress(TimeoutError):
                async with asyncio.timeout_at(next_end):
                    await self._news.wait()
            try:
                for lease_id, running in list(self._running.items()):
                    async with self._one_at_a_time:
                        if lease_id in self._running and running.ends_at <= loop.time():
                            await self._audit.lease_expired(running.lease.secret, lease_id)
                            self._end(lease_id, LeaseEnd.EXPIRED)
            except EventStoreError:
                # It gives no right any more; that it ended is told as soon as the log can be written.
                await asyncio.sleep(_LOG_PAUSE_SECONDS)

    def _held(self, lease_id: str, by: Asker) -> _Running:
        running = self._live(lease_id)
        if running.lease.holder != by.actor:
            raise LeaseNotLiveError(lease_id, LeaseEnd.UNKNOWN)
        return running

    def _live(self, lease_id: str) -> _Running:
        running = self._running.get(lease_id)
        if running is None:
            raise LeaseNotLiveError(lease_id, self._ended.get(lease_id, LeaseEnd.UNKNOWN))
        if running.ends_at <= asyncio.get_running_loop().time():
            raise LeaseNotLiveError(lease_id, LeaseEnd.EXPIRED)
        return running

    def _end(self, lease_id: str, end: LeaseEnd) -> None:
        del self._running[lease_id]
        self._ended[lease_id] = end
        while len(self._ended) > _MOST_ENDS_KNOWN:
            self._ended.popitem(last=False)

    def _next_end(self) -> float:
        return asyncio.get_running_loop().time() + self._term.total_seconds()

    def _shown(self, running: _Running) -> LiveLease:
        left = timedelta(seconds=running.ends_at - asyncio.get_running_loop().time())
        granted = datetime.fromtimestamp(running.lease.granted_ns / _NS_A_SECOND, UTC)
        return LiveLease(running.lease, granted, self._clock() + left)
