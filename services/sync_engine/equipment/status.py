"""How the equipment stands: whether its destinations answer now, what room they have, and its jobs by state."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from libs.event_log.projection import ProjectionRunner
from libs.service_kit.equipment_settings import EquipmentSettings
from libs.service_kit.work_threads import WorkThreads
from services.sync_engine.equipment.pause import EquipmentRecord
from services.sync_engine.equipment.read_model import equipment_record, job_counts
from services.sync_engine.jobs.destination_watch import DestinationWatch
from services.sync_engine.jobs.job import JobState
from services.sync_engine.runs.location import RunLocator
from services.sync_engine.targets.target import Target
from services.sync_engine.transfer.destination import Destination
from services.sync_engine.transfer.transport import TargetTraits, TransferError

ANSWER_SECONDS = 5.0
"""How long a caller is kept waiting for destinations that don't answer."""


@dataclass(frozen=True, slots=True)
class DestinationStatus:
    """One destination as it answered, and as the log knows it. `problem` empty: it is reachable; `free_bytes` None: it
    can't be known."""

    name: str
    kind: str
    required: bool
    problem: str
    checked: datetime
    free_bytes: int | None
    traits: TargetTraits | None
    tools: Mapping[str, str]
    target: Target


@dataclass(frozen=True, slots=True)
class EquipmentStatus:
    settings: EquipmentSettings
    record: EquipmentRecord
    destinations: Sequence[DestinationStatus]
    counts: Mapping[JobState, int]


class EquipmentStatuses:
    """Answers from the log and from the destinations themselves, all asked at once."""

    def __init__(
        self,
        projections: ProjectionRunner,
        locator: RunLocator,
        destinations: Mapping[str, Sequence[Destination]],
        watch: DestinationWatch,
        threads: WorkThreads,
        clock: Callable[[], datetime],
        target: Callable[[str, str], Target],
    ) -> None:
        self._projections = projections
        self._locator = locator
        self._destinations = destinations
        self._watch = watch
        self._threads = threads
        self._clock = clock
        self._target = target

    async def all(self) -> Sequence[EquipmentStatus]:
        """In the order of the configuration."""
        return await self._of(self._locator.all_equipment)

    async def one(self, equipment_id: str) -> EquipmentStatus:
        """EquipmentNotConfiguredError."""
        return (await self._of([self._locator.equipment(equipment_id)]))[0]

    async def _of(self, equipment: Sequence[EquipmentSettings]) -> list[EquipmentStatus]:
        places = [(e.id, d) for e in equipment for d in self._destinations[e.id]]
        answers = await asyncio.gather(*(self._ask(equipment_id, d) for equipment_id, d in places))
        by_equipment: dict[str, list[DestinationStatus]] = {e.id: [] for e in equipment}
        for (equipment_id, _), answer in zip(places, answers, strict=True):
            by_equipment[equipment_id].append(answer)
        counts = await self._projections.query(job_counts)
        records = await self._projections.query(lambda c: {e.id: equipment_record(c, e.id) for e in equipment})
        return [EquipmentStatus(e, records[e.id], by_equipment[e.id], counts.get(e.id, {})) for e in equipment]

    async def _ask(self, equipment_id: str, destination: Destination) -> DestinationStatus:
        problem, free = "", None
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                failure = await self._watch.ask(equipment_id, destination)
                if failure is None:
                    free = await self._threads.run(destination.transport.free_bytes)
                else:
                    problem = failure.message
        except TransferError as error:
            problem = error.message
        except TimeoutError:
            problem = f"it did not answer within {ANSWER_SECONDS:.0f} s"
        return DestinationStatus(
            name=destination.name,
            kind=destination.kind,
            required=destination.required,
            problem=problem,
            checked=self._clock(),
            free_bytes=free,
            traits=destination.transport.traits,
            tools=destination.transport.tools,
            target=self._target(equipment_id, destination.name),
        )
