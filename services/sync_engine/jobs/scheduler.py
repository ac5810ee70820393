"""Starts each job's next step as soon as its event or time has come: per equipment, oldest first, without polling."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from heapq import heappop, heappush

from libs.service_kit.telemetry import Logger
from services.sync_engine.jobs.making_way import Slot
from services.sync_engine.jobs.work import Work

_AFTER_DEFECT = timedelta(minutes=1)
_NEVER = float("inf")


@dataclass(slots=True)
class _Entry:
    work: Work
    not_before: float = 0.0
    task: asyncio.Task[None] | None = None
    woken: bool = False
    queued_as: tuple[int, int] | None = None

    @property
    def rank(self) -> tuple[int, int]:
        return (-self.work.priority, self.work.place)


@dataclass(slots=True)
class _Queue:
    """One equipment's jobs that may begin now, the first on top, and those in work.

    Ready jobs aren't taken out of the heap when they change: an entry whose rank or time is another now is passed over.
    """

    max_parallel: int
    paused: bool = False
    ready: list[tuple[tuple[int, int], str]] = field(default_factory=list)
    in_work: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class StepEnd:
    """`revision` is the job's when its step ended. `again`: when to look at it although no event says so; None: when an
    event comes."""

    revision: int
    again: datetime | None = None


Step = Callable[[str], Awaitable[StepEnd]]
"""Does a job's next step."""


class Scheduler:
    """Owns the tasks of all jobs in work.

    `max_parallel` gives each configured equipment's slots; jobs of other equipment wait. Each equipment may always have
    one job in work, so that one whose destination hangs holds up no other; further ones only while fewer than `in_all`
    are in work.
    """

    def __init__(
        self,
        step: Step,
        max_parallel: Mapping[str, int],
        clock: Callable[[], datetime],
        logger: Logger,
        *,
        in_all: int,
        paused: Iterable[str] = (),
    ) -> None:
        held = frozenset(paused)
        self._step = step
        self._queues = {i: _Queue(slots, paused=i in held) for i, slots in max_parallel.items()}
        self._in_all = in_all
        self._clock = clock
        self._logger = logger
        self._entries: dict[str, _Entry] = {}
        self._of_run: dict[str, list[str]] = {}
        self._timers: list[tuple[float, str]] = []
        self._turn = 0
        self._wake = asyncio.Event()
        self._owner: asyncio.Task[None] | None = None
        self._stopping = False
        self._busy_listeners: list[Callable[[str, bool], None]] = []

    def start(self, work: Iterable[Work]) -> None:
        for one in work:
            self.consider(one)
        self._owner = asyncio.create_task(self._run(), name="scheduler")

    def on_busy(self, listener: Callable[[str, bool], None]) -> None:
        """Hears (equipment, True) before a step of it begins, and (equipment, False) when its last one has ended."""
        self._busy_listeners.append(listener)

    def slot(self, equipment_id: str) -> Slot:
        """Whether a step of the equipment is going on, or all are held back by an operator's pause."""
        queue = self._queues.get(equipment_id)
        if queue is None or queue.paused:
            return Slot.CLOSED
        return Slot.IN_WORK if queue.in_work else Slot.IDLE

    def notice(self, work: Work) -> None:
        """A job was made or changed."""
        entry = self._entries.get(work.job_id)
        if not work.over or (entry is not None and entry.task is not None):
            self.consider(work)
        elif entry is not None and work.revision >= entry.work.revision:
            self._forget(entry.work)

    def consider(self, work: Work) -> None:
        """The job may have work to do: its step is called at least once."""
        entry = self._entries.get(work.job_id)
        if entry is None:
            entry = self._entries[work.job_id] = _Entry(work)
            self._of_run.setdefault(work.run, []).append(work.job_id)
        elif work.revision < entry.work.revision:
            return
        entry.work = work
        if entry.task is None:
            self._hold_until(entry, asyncio.get_running_loop().time() + work.pause if work.pause > 0 else 0.0)
        self._wake.set()

    def wake_run(self, run: str) -> None:
        """Something that jobs of this run may wait for has happened: they are looked at now."""
        for job_id in self._of_run.get(run, ()):
            self._look_again(self._entries[job_id])
        self._wake.set()

    def wake_destination(self, equipment_id: str, destination: str) -> None:
        """A destination answers again: the jobs that go there are looked at now."""
        for entry in self._entries.values():
            if (entry.work.equipment_id, entry.work.destination) == (equipment_id, destination):
                self._look_again(entry)
        self._wake.set()

    def pause_equipment(self, equipment_id: str, paused: bool) -> None:
        """While it is paused no step of its jobs begins."""
        queue = self._queues.get(equipment_id)
        if queue is None:
            return
        queue.paused = paused
        self._busy(equipment_id, paused or bool(queue.in_work))
        for entry in self._entries.values():
            # Their steps were cut short by the pause, or are about to end of it: no event of theirs makes them go on.
            cut_short = entry.task is not None or entry.not_before == _NEVER
            if not paused and entry.work.equipment_id == equipment_id and cut_short:
                self._look_again(entry)
        self._wake.set()

    def next_try(self, job_id: str) -> datetime | None:
        """When a waiting job is looked at again; None when it isn't known to wait."""
        entry = self._entries.get(job_id)
        if entry is None or entry.task is not None:
            return None
        pause = entry.not_before - asyncio.get_running_loop().time()
        return self._clock() + timedelta(seconds=pause) if 0 < pause < _NEVER else None

    def has_work(self, job_id: str) -> bool:
        """Whether the job has a step to take, now or once something has happened, and takes none at this moment."""
        entry = self._entries.get(job_id)
        return entry is not None and entry.task is None

    def may_begin(self, job_id: str) -> bool:
        """Whether a job's next step waits for nothing but its turn."""
        entry = self._entries.get(job_id)
        return entry is not None and entry.task is None and entry.not_before <= 0.0

    def serves(self, equipment_id: str) -> bool:
        """Whether the equipment is configured: jobs of any other wait for that."""
        return equipment_id in self._queues

    def jobs_in_work(self, equipment_id: str) -> frozenset[str]:
        """Jobs of an equipment whose step is going on."""
        queue = self._queues.get(equipment_id)
        return frozenset(queue.in_work) if queue is not None else frozenset()

    async def stop(self) -> None:
        """Starts nothing more and waits for the steps in work, which were told to end."""
        self._stopping = True
        self._wake.set()
        if self._owner is not None:
            await self._owner
        tasks = [e.task for e in self._entries.values() if e.task is not None]
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self) -> None:
        while not self._stopping:
            self._wake.clear()
            pause = self._start_what_is_due()
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _start_what_is_due(self) -> float | None:
        """Returns the seconds until the next entry is due; None when only an event can change anything."""
        now = asyncio.get_running_loop().time()
        while self._timers and self._timers[0][0] <= now:
            moment, job_id = heappop(self._timers)
            entry = self._entries.get(job_id)
            if entry is not None and entry.task is None and entry.not_before == moment:
                self._ready(entry)
        in_work = sum(len(q.in_work) for q in self._queues.values())
        queues = list(self._queues.values())
        # Beginning at another equipment each time, so that none is always the last to get a further slot.
        self._turn += 1
        first = self._turn % len(queues) if queues else 0
        begun = True
        while begun:
            begun = False
            for queue in (*queues[first:], *queues[:first]):
                if (not queue.in_work or in_work < self._in_all) and self._begin_next(queue):
                    in_work += 1
                    begun = True
        return max(0.0, self._timers[0][0] - now) if self._timers else None

    def _begin_next(self, queue: _Queue) -> bool:
        if queue.paused or len(queue.in_work) >= queue.max_parallel:
            return False
        while queue.ready:
            rank, job_id = heappop(queue.ready)
            entry = self._entries.get(job_id)
            if entry is None or entry.queued_as != rank:
                continue
            entry.queued_as = None
            if entry.task is not None or entry.not_before > 0.0:
                continue
            queue.in_work.add(job_id)
            self._busy(entry.work.equipment_id, True)
            entry.task = asyncio.create_task(self._do(entry, queue), name=f"job {job_id}")
            return True
        return False

    def _ready(self, entry: _Entry) -> None:
        entry.not_before = 0.0
        queue = self._queues.get(entry.work.equipment_id)
        if queue is not None and entry.queued_as != entry.rank:
            entry.queued_as = entry.rank
            heappush(queue.ready, (entry.rank, entry.work.job_id))

    def _hold_until(self, entry: _Entry, moment: float) -> None:
        if moment <= 0.0:
            self._ready(entry)
            return
        entry.not_before = moment
        if moment < _NEVER:
            heappush(self._timers, (moment, entry.work.job_id))

    def _look_again(self, entry: _Entry) -> None:
        if entry.task is None:
            self._ready(entry)
        else:
            # A step in work may have looked before it happened: it is followed by another look.
            entry.woken = True

    async def _do(self, entry: _Entry, queue: _Queue) -> None:
        before = entry.work.revision
        end = StepEnd(before)
        try:
            end = await self._step(entry.work.job_id)
        except Exception as error:
            self._logger.error("job_step_failed", job=entry.work.job_id, exc_info=error)
            end = StepEnd(before, self._clock() + _AFTER_DEFECT)
        finally:
            entry.task = None
            queue.in_work.discard(entry.work.job_id)
            self._settle(entry, end, moved=entry.work.revision != before)
            if not queue.in_work:
                self._busy(entry.work.equipment_id, False)
            self._wake.set()

    def _settle(self, entry: _Entry, end: StepEnd, *, moved: bool) -> None:
        work, now = entry.work, asyncio.get_running_loop().time()
        # The news of what the step itself did may still be on its way; older news must not begin it anew.
        behind = work.revision < end.revision
        if behind:
            entry.work = replace(work, revision=end.revision)
        if work.over and not behind and end.again is None:
            self._forget(work)
        elif entry.woken:
            entry.woken = False
            self._ready(entry)
        elif end.again is not None:
            self._hold_until(entry, now + max(0.001, (end.again - self._clock()).total_seconds()))
        elif behind:
            entry.not_before = _NEVER
        elif moved:
            self._hold_until(entry, now + work.pause if work.pause > 0 else 0.0)
        else:
            # A step that changed nothing and names no time waits for an event.
            entry.not_before = _NEVER

    def _busy(self, equipment_id: str, busy: bool) -> None:
        for listener in self._busy_listeners:
            listener(equipment_id, busy)

    def _forget(self, work: Work) -> None:
        del self._entries[work.job_id]
        others = self._of_run[work.run]
        others.remove(work.job_id)
        if not others:
            del self._of_run[work.run]
