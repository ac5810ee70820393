"""Lets proven copies be read back when it is their time and their equipment has nothing better to do (SPEC §4)."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

from libs.event_log.blob_store import BlobError
from libs.event_log.projection import AppliedEvent, ProjectionRunner
from libs.event_log.store import EventStoreError, LeaseLostError
from libs.service_kit.errors import LabferryError
from services.sync_engine.audits.first_seen import FirstSeen
from services.sync_engine.audits.read_model import DueCopy, next_to_audit, next_to_scrub
from services.sync_engine.audits.reading import CopyReading
from services.sync_engine.jobs.job import PROVEN_STATES, Job
from services.sync_engine.jobs.making_way import MakingWay
from services.sync_engine.jobs.verify_step import Occasion
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.secrets.purpose import working_for
from services.sync_engine.transfer.destination import Destination
from services.sync_engine.transfer.transfer_control import StopReason, TransferControl, TransferStoppedError
from services.sync_engine.transfer.transport import TransferError

_MOST_SLEEP = 3600.0
"""The clock on the wall may be set meanwhile: the read model is asked this often at least."""

_REST = timedelta(minutes=5)
"""A destination that can't be read now is left alone for so long, or until it is known to answer again."""

_MOST_REST = timedelta(hours=6)
_UNREAD_IN_A_ROW = 3
"""After so many readings in a row, of whichever copies, that couldn't check, a destination is left alone as well: each
further one doubles that rest."""

_SCRUB_BEGINS = 0.75
"""Part of the interval after which a file's turn comes, so that every file is read within it."""

_MOVES = (".verified.v1", ".verification_failed.v1", ".repair_ended.v1", ".files_scrubbed.v1", ".trusted.v1")


@dataclass(frozen=True, slots=True)
class PassRules:
    """Passes that are wanted of each copy, the time between two, and within which time every file is read again."""

    passes: int
    interval: timedelta
    scrub_interval: timedelta | None


@dataclass(frozen=True, slots=True)
class _Due:
    """`seconds` until it is due; negative: overdue."""

    seconds: float
    place: Destination
    job_id: str
    scrub: bool


@dataclass(slots=True)
class _Lane:
    equipment_id: str
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    control: TransferControl | None = None
    rests_until: dict[str, float] = field(default_factory=dict)
    unread: dict[str, int] = field(default_factory=dict)


class Auditor:
    """Owns one task and one timer an equipment, however many copies there are. A transfer that begins makes
    a reading give way at once, and it goes on later where it was; `making_way` says when it needn't any more."""

    def __init__(
        self,
        bench: Workbench,
        projections: ProjectionRunner,
        reading: CopyReading,
        rules: PassRules,
        making_way: MakingWay,
        first_seen: FirstSeen,
    ) -> None:
        self._bench = bench
        self._projections = projections
        self._reading = reading
        self._rules = rules
        self._making_way = making_way
        self._first_seen = first_seen
        self._lanes = {equipment_id: _Lane(equipment_id) for equipment_id in bench.destinations}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._run(lane), name=f"audits of {i}") for i, lane in self._lanes.items()]

    async def close(self) -> None:
        for lane in self._lanes.values():
            if lane.control is not None:
                lane.control.stop(StopReason.ENGINE_STOPPING)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def applied(self, batch: Sequence[AppliedEvent]) -> None:
        """The callback of the projections: what is due next may be another now."""
        self._first_seen.note(batch[0][0].position)
        if any(event.type.endswith(_MOVES) for event, _ in batch):
            for lane in self._lanes.values():
                lane.wake.set()

    def busy(self, equipment_id: str, busy: bool) -> None:
        """An equipment's slot was taken, or is free again."""
        lane = self._lanes.get(equipment_id)
        if lane is None:
            return
        if not busy:
            lane.wake.set()
        elif lane.control is not None and not self._making_way.may_read(equipment_id):
            lane.control.stop(StopReason.GIVES_WAY)

    def destination_back(self, equipment_id: str, destination: str) -> None:
        """A destination answers again."""
        lane = self._lanes.get(equipment_id)
        if lane is not None:
            lane.rests_until.pop(destination, None)
            lane.unread.pop(destination, None)
            lane.wake.set()

    async def _run(self, lane: _Lane) -> None:
        while True:
            lane.wake.clear()
            try:
                pause = await self._look(lane)
            except (LabferryError, EventStoreError, OSError) as error:
                self._bench.logger.warning("audit_failed", equipment=lane.equipment_id, problem=str(error))
                pause = _REST.total_seconds()
            except Exception as error:
                self._bench.logger.error(
                    "audit_defect", equipment=lane.equipment_id, error_id=uuid.uuid4().hex, exc_info=error
                )
                pause = _REST.total_seconds()
            try:
                async with asyncio.timeout(pause):
                    await lane.wake.wait()
            except TimeoutError:
                continue

    async def _look(self, lane: _Lane) -> float | None:
        """Reads what is most overdue. Seconds until the next look; None: when the equipment's slot is free again."""
        if not self._making_way.may_read(lane.equipment_id):
            return self._making_way.pause(lane.equipment_id)
        now = asyncio.get_running_loop().time()
        rests = [until - now for until in lane.rests_until.values() if until > now]
        awake = self._awake(lane, now)
        found = [due for place in awake for due in await self._due(lane.equipment_id, place)]
        first = min(found, key=lambda due: due.seconds, default=None)
        if first is not None and first.seconds <= 0:
            await self._do(lane, first)
            return 0.0
        return min([_MOST_SLEEP, *rests, *(due.seconds for due in found)])

    def _awake(self, lane: _Lane, now: float) -> Sequence[Destination]:
        places = self._bench.destinations[lane.equipment_id]
        return [place for place in places if lane.rests_until.get(place.name, 0.0) <= now]

    async def _due(self, equipment_id: str, place: Destination) -> Sequence[_Due]:
        rules, query, name = self._rules, self._projections.query, place.name
        now = self._bench.clock()
        audits = await query(lambda c: next_to_audit(c, equipment_id, name, rules.passes, rules.interval, now))
        scrubs: Sequence[DueCopy] = ()
        if rules.scrub_interval is not None:
            pause = rules.scrub_interval * _SCRUB_BEGINS
            scrubs = await query(lambda c: next_to_scrub(c, equipment_id, name, pause, now))
        now, time_of = self._bench.clock(), self._first_seen.times()
        return [
            _Due((time_of(copy.since, copy.position) + copy.pause - now).total_seconds(), place, copy.job_id, scrub)
            for scrub, copies in ((False, audits), (True, scrubs))
            for copy in copies
        ]

    async def _do(self, lane: _Lane, due: _Due) -> None:
        bench = self._bench
        job = await bench.log.job(due.job_id)
        if job is None or job.state not in PROVEN_STATES:
            self._rest(lane, due.place)
            return
        if await self._is_away(lane, due.place):
            self._rest(lane, due.place)
            return
        async with bench.owned.over(job.job_id, job.equipment_id) as mine:
            if not mine:
                self._rest(lane, due.place)
                return
            lane.control = bench.control_of(job)
            try:
                with working_for(f"audit of job {job.job_id}"):
                    self._note(lane, due.place, await self._read(lane, lane.control, job, due))
            except (TransferStoppedError, LeaseLostError):
                # It gave way, or the job is another engine's; either way it is still due, its repair too.
                return
            except (LabferryError, EventStoreError):
                raise
            except Exception as error:  # noqa: BLE001 -- what is wrong with one copy, a lost blob or a defect, is told
                await self._tell(job, due, error)
            finally:
                lane.control = None

    async def _tell(self, job: Job, due: _Due, error: Exception) -> None:
        """The reading is one that couldn't check, so that the copy waits for its next turn and is a finding."""
        error_id = uuid.uuid4().hex
        self._bench.logger.error("audit_defect", job=job.job_id, error_id=error_id, exc_info=error)
        known = isinstance(error, BlobError | OSError)
        why = str(error) if known else f"internal error {error_id}; the service's log has the details"
        await self._reading.broke_off(job, Occasion.SCRUB if due.scrub else Occasion.AUDIT, why)

    async def _read(self, lane: _Lane, control: TransferControl, job: Job, due: _Due) -> bool:
        if due.scrub:
            return await self._reading.scrub(job, due.place, control)
        return await self._reading.audit(job, due.place, control, partial(self._making_way.may_read, lane.equipment_id))

    def _note(self, lane: _Lane, place: Destination, could_be_read: bool) -> None:
        if could_be_read:
            lane.unread.pop(place.name, None)
            return
        unread = lane.unread[place.name] = lane.unread.get(place.name, 0) + 1
        if unread >= _UNREAD_IN_A_ROW:
            self._rest(lane, place, min(_MOST_REST, _REST * 2 ** min(unread - _UNREAD_IN_A_ROW, 10)))

    async def _is_away(self, lane: _Lane, place: Destination) -> bool:
        try:
            return await self._bench.watch.look(lane.equipment_id, place) is not None
        except TransferError:
            return True

    def _rest(self, lane: _Lane, place: Destination, rest: timedelta = _REST) -> None:
        lane.rests_until[place.name] = asyncio.get_running_loop().time() + rest.total_seconds()
