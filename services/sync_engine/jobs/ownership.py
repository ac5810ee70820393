"""Which engine works on a job, where several share one log: leases that end, and fences (ARCHITECTURE §4)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from libs.event_log.lease import Lease, Leases
from libs.event_log.store import LeaseFence, LeaseLostError, LogUnavailableError
from libs.service_kit.boot_clock import boot_seconds
from libs.service_kit.telemetry import Logger

_AGAIN_SECONDS = 1.0


class Ownership(Protocol):
    """Says whether this engine may work on a job now, and under which fence it appends."""

    def over(self, job_id: str, equipment_id: str, *, in_slot: bool = True) -> AbstractAsyncContextManager[bool]:
        """A block in which the job is this engine's alone; it gets False while another engine has the job, or as many
        of the equipment's jobs as may be in work. Not `in_slot`: what is done sends nothing, so it needs none of the
        equipment's slots and keeps no transfer from one."""
        ...

    def fence(self, job_id: str) -> LeaseFence | None:
        """For appends to a job in work; None where no other engine can be."""

    def holds(self, job_id: str) -> bool:
        """Whether a job in work is surely this engine's still, by its own clock: for what no log can refuse. Any thread
        may ask."""


class SoleOwnership:
    """One engine alone keeps the log: every job is its own."""

    @asynccontextmanager
    async def over(self, job_id: str, equipment_id: str, *, in_slot: bool = True) -> AsyncIterator[bool]:
        yield True

    def fence(self, job_id: str) -> LeaseFence | None:
        return None

    def holds(self, job_id: str) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """A holder that could not renew for `lasts` seconds ends its work; another may take over `grace` seconds later."""

    lasts: float

    @property
    def grace(self) -> float:
        """Long enough for work that was told to end to have ended."""
        return self.lasts / 2

    @property
    def renew_every(self) -> float:
        return self.lasts / 3


class LeasedOwnership:
    """Several engines share the log. `on_lost` hears of each job whose lease could not be renewed in time: its work is
    to be ended at once. `clock`: that of the leases' `believed_until`."""

    def __init__(
        self,
        leases: Leases,
        engine_id: str,
        max_parallel: Callable[[str], int],
        on_lost: Callable[[str], None],
        logger: Logger,
        terms: LeaseTerms,
        clock: Callable[[], float] = boot_seconds,
    ) -> None:
        self._leases = leases
        self._engine_id = engine_id
        self._max_parallel = max_parallel
        self._on_lost = on_lost
        self._logger = logger
        self._terms = terms
        self._clock = clock
        self._held: dict[str, Lease] = {}
        self._taken: set[str] = set()

    def fence(self, job_id: str) -> LeaseFence | None:
        lease = self._held.get(job_id)
        # A job without a lease is nobody's to append to: a fence that no lease ever had is refused.
        return lease.fence if lease is not None else LeaseFence(_job_lease(job_id), 0)

    def holds(self, job_id: str) -> bool:
        lease = self._held.get(job_id)
        return lease is not None and self._clock() < lease.believed_until - self._terms.grace

    @asynccontextmanager
    async def over(self, job_id: str, equipment_id: str, *, in_slot: bool = True) -> AsyncIterator[bool]:
        if job_id in self._taken:
            # The same engine may come for a job twice: a second lease would take the first one's fence away.
            yield False
            return
        async with AsyncExitStack() as held:
            self._taken.add(job_id)
            held.callback(self._taken.discard, job_id)
            job = await self._acquire(held, _job_lease(job_id))
            slot = await self._slot(held, job_id, equipment_id) if in_slot and job is not None else None
            if job is None or (in_slot and slot is None):
                yield False
                return
            self._held[job_id] = job
            leases = [job] if slot is None else [job, slot]
            renewing = asyncio.create_task(self._renew(job_id, leases), name=f"leases of job {job_id}")
            try:
                yield True
            finally:
                renewing.cancel()
                await asyncio.wait([renewing])
                del self._held[job_id]

    async def _slot(self, held: AsyncExitStack, job_id: str, equipment_id: str) -> Lease | None:
        for number in range(self._max_parallel(equipment_id)):
            # The equipment's slots are the same for all engines that serve it.
            slot = await self._acquire(held, f"slot-{equipment_id}-{number}", self._slot_holder(job_id))
            if slot is not None:
                return slot
        return None

    def _slot_holder(self, job_id: str) -> str:
        # A slot is the job's, not the engine's: two jobs of one engine must not share it.
        return f"{self._engine_id} {job_id}"

    async def _acquire(self, held: AsyncExitStack, name: str, holder: str = "") -> Lease | None:
        terms = self._terms
        lease = await self._leases.acquire(name, holder or self._engine_id, terms.lasts + terms.grace)
        if lease is not None:
            held.push_async_callback(self._release, lease)
        return lease

    async def _release(self, lease: Lease) -> None:
        try:
            await self._leases.release(lease)
        except (LogUnavailableError, LeaseLostError) as error:
            # It ends by itself.
            self._logger.warning("lease_not_released", lease=lease.name, problem=str(error))

    async def _renew(self, job_id: str, leases: list[Lease]) -> None:
        terms, pause = self._terms, self._terms.renew_every
        while True:
            left = min(lease.believed_until for lease in leases) - terms.grace - self._clock()
            try:
                async with asyncio.timeout(left):
                    await asyncio.sleep(pause)
                    leases = [await self._leases.renew(lease, terms.lasts + terms.grace) for lease in leases]
            except LogUnavailableError:
                pause = _AGAIN_SECONDS
                continue
            except (LeaseLostError, TimeoutError):
                self._logger.warning("lease_lost", job=job_id)
                # The fence stays, so that what its work still tries to record is refused.
                self._held[job_id] = replace(self._held[job_id], believed_until=0.0)
                self._on_lost(job_id)
                return
            self._held[job_id] = leases[0]
            pause = terms.renew_every


def _job_lease(job_id: str) -> str:
    return f"job-{job_id}"
