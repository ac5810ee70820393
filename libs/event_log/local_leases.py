"""Leases where one process keeps the log: nobody else can ask for one, so they live in its memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from libs.event_log.lease import Lease
from libs.event_log.store import LeaseFence, LeaseLostError
from libs.service_kit.boot_clock import boot_seconds


@dataclass(slots=True)
class _Grant:
    lease: Lease
    fenced_appends: int = 0


class LocalLeases:
    """Leases of one process, on its own clock in seconds. Used on one event loop."""

    def __init__(self, clock: Callable[[], float] = boot_seconds) -> None:
        self._clock = clock
        self._grants: dict[str, _Grant] = {}
        self._tokens = itertools.count(1)

    async def acquire(self, name: str, holder: str, seconds: float) -> Lease | None:
        grant = self._grants.get(name)
        if grant is not None and grant.lease.holder != holder and (grant.fenced_appends or self._holds(grant)):
            return None
        lease = Lease(name, holder, next(self._tokens), self._clock() + seconds)
        self._grants[name] = _Grant(lease)
        return lease

    async def renew(self, lease: Lease, seconds: float) -> Lease:
        grant = self._held(lease.fence)
        grant.lease = Lease(lease.name, lease.holder, lease.token, self._clock() + seconds)
        return grant.lease

    async def release(self, lease: Lease) -> None:
        grant = self._grants.get(lease.name)
        if grant is not None and grant.lease.token == lease.token:
            grant.lease = Lease(lease.name, lease.holder, lease.token, self._clock())
            if not grant.fenced_appends:
                del self._grants[lease.name]

    async def holder(self, name: str) -> str | None:
        grant = self._grants.get(name)
        return grant.lease.holder if grant is not None and self._holds(grant) else None

    @contextmanager
    def fenced(self, fence: LeaseFence | None) -> Iterator[None]:
        """Around an append: nobody else gets the lease meanwhile. LeaseLostError when it isn't held."""
        if fence is None:
            yield
            return
        grant = self._held(fence)
        grant.fenced_appends += 1
        try:
            yield
        finally:
            grant.fenced_appends -= 1

    def _held(self, fence: LeaseFence) -> _Grant:
        grant = self._grants.get(fence.name)
        if grant is None or grant.lease.token != fence.token or not self._holds(grant):
            raise LeaseLostError(fence)
        return grant

    def _holds(self, grant: _Grant) -> bool:
        return self._clock() < grant.lease.believed_until
