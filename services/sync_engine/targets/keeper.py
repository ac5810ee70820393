"""Keeps what is found out about destinations as events: what they do with names, and files that were wrong twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime

from google.protobuf.message import Message

from labferry.events.v1 import equipment_events_pb2, job_events_pb2
from labferry.sync.v1 import equipment_service_pb2
from libs.event_log.projection import AppliedEvent
from libs.event_log.store import EventStoreError, Expected
from libs.service_kit.telemetry import Logger
from services.sync_engine.engine_log import BY_ITSELF, Cause, Change, EngineLog, decided_anew, recorded_at
from services.sync_engine.errors import no_destination
from services.sync_engine.event_types import EVENT_TYPES, destination_stream
from services.sync_engine.jobs.job import Job, JobState
from services.sync_engine.targets.target import Target, evolve, why_suspected
from services.sync_engine.transfer.destination import Destination
from services.sync_engine.transfer.transport import FailureKind, TargetTraits, TransferError


class TargetKeeper:
    """Owns one task. `on_trusted` hears (equipment, destination) when an operator trusts one again. `sent_by` tells
    which of some files a job put into place itself: the others say nothing of how the destination takes them."""

    def __init__(
        self,
        log: EngineLog,
        destinations: Mapping[str, Sequence[Destination]],
        logger: Logger,
        on_trusted: Callable[[str, str], None],
        sent_by: Callable[[Job, Sequence[str]], Awaitable[Sequence[str]]],
    ) -> None:
        self._log = log
        self._places = {(i, d.name): d for i, ds in destinations.items() for d in ds}
        self._logger = logger
        self._on_trusted = on_trusted
        self._sent_by = sent_by
        self._targets: dict[tuple[str, str], Target] = {}
        self._due: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self, failed: Iterable[Job]) -> None:
        """Reads what the log knows; then what a crash may have left unrecorded of these failed jobs is recorded."""
        for equipment_id, name in self._places:
            self._targets[equipment_id, name] = await self._read(equipment_id, name)
        self._due.update(dict.fromkeys(job.job_id for job in failed))
        self._wake.set()
        self._task = asyncio.create_task(self._work(), name="targets")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def target(self, equipment_id: str, destination: str) -> Target:
        return self._targets.get((equipment_id, destination), Target(equipment_id, destination))

    def why_suspected(self, equipment_id: str, destination: str) -> str:
        """Why its jobs wait; empty: they don't."""
        return why_suspected(self.target(equipment_id, destination))

    def suspected(self) -> Sequence[Target]:
        """Those whose jobs wait for an operator."""
        return [target for target in self._targets.values() if target.is_suspected]

    async def trust(self, equipment_id: str, destination: str, cause: Cause) -> None:
        """DestinationNotFoundError. Nothing is recorded when there is nothing to forget."""
        if (equipment_id, destination) not in self._places:
            raise no_destination(equipment_id, destination)
        event = equipment_events_pb2.DestinationTrusted(equipment_id=equipment_id, destination=destination)
        await self._append(equipment_id, destination, lambda t: event if t.doubted else None, cause)

    def applied(self, batch: Sequence[AppliedEvent]) -> None:
        """The callback of the projections."""
        for event, payload in batch:
            if isinstance(payload, job_events_pb2.JobFailed | job_events_pb2.JobCopied):
                self._due[event.stream.removeprefix("job-")] = None
                self._wake.set()
            elif isinstance(payload, equipment_events_pb2.DestinationTrusted | equipment_events_pb2.DestinationDoubted):
                # Another engine that shares the log may have recorded it.
                self._fold(payload.equipment_id, payload.destination, payload, recorded_at(event), event.revision)

    def _fold(self, equipment_id: str, destination: str, payload: Message, at: datetime, revision: int) -> None:
        known = self.target(equipment_id, destination)
        if revision == known.revision + 1:
            self._targets[equipment_id, destination] = evolve(known, payload, at)
        if isinstance(payload, equipment_events_pb2.DestinationTrusted):
            self._on_trusted(equipment_id, destination)

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._due:
                job_id = next(iter(self._due))
                del self._due[job_id]
                try:
                    await self.look(job_id)
                except (TransferError, EventStoreError) as error:
                    self._logger.warning("target_not_recorded", job=job_id, problem=str(error))

    async def look(self, job_id: str) -> None:
        """Records what a job found out about its destination; what is recorded already isn't again. TransferError."""
        job = await self._log.job(job_id)
        place = None if job is None else self._places.get((job.equipment_id, job.destination))
        if job is None or place is None:
            return
        traits = place.transport.traits
        if traits is not None:
            probed = equipment_events_pb2.DestinationProbed(
                equipment_id=job.equipment_id,
                destination=job.destination,
                probe=probe_message(traits, place.transport.tools),
            )
            await self._append(
                job.equipment_id, job.destination, lambda t: None if t.probe == probed.probe else probed, BY_ITSELF
            )
        if job.failure is not None and job.failure.kind is FailureKind.HASH_MISMATCH and job.state is JobState.FAILED:
            await self._doubt_attempt(job)

    async def doubt(self, job: Job, paths: Sequence[str]) -> None:
        """Files of a proven copy, relative to the run, were wrong again after they were put back. Those that are
        doubted already don't count again."""
        wrong = [f"{job.run}/{path}" for path in paths]

        def decide(target: Target) -> Message | None:
            new = [path for path in wrong if path not in target.doubted]
            return _doubted(job, new) if new else None

        await self._append(job.equipment_id, job.destination, decide, BY_ITSELF)

    async def _doubt_attempt(self, job: Job) -> None:
        attempt = (job.job_id, job.attempt)
        if attempt in self.target(job.equipment_id, job.destination).attempts or job.failure is None:
            return
        sent = await self._sent_by(job, job.failure.paths)
        if not sent:
            return
        event = _doubted(job, [f"{job.run}/{path}" for path in sent])
        await self._append(
            job.equipment_id, job.destination, lambda t: None if attempt in t.attempts else event, BY_ITSELF
        )

    async def _append(
        self, equipment_id: str, destination: str, decide: Callable[[Target], Message | None], cause: Cause
    ) -> None:
        async def attempt() -> None:
            target = await self._read(equipment_id, destination)
            event = decide(target)
            if event is not None:
                expected = target.revision if target.revision >= 0 else Expected.NONE
                stream = destination_stream(equipment_id, destination)
                await self._log.append(cause, Change(stream, expected, (event,)))
                target = await self._read(equipment_id, destination)
            self._targets[equipment_id, destination] = target

        await decided_anew(attempt)

    async def _read(self, equipment_id: str, destination: str) -> Target:
        target = Target(equipment_id, destination)
        for event in await self._log.store.read_stream(destination_stream(equipment_id, destination)):
            payload = EVENT_TYPES.decode(event)
            if payload is not None:
                target = evolve(target, payload, recorded_at(event))
        return target


def _doubted(job: Job, paths: Sequence[str]) -> equipment_events_pb2.DestinationDoubted:
    return equipment_events_pb2.DestinationDoubted(
        equipment_id=job.equipment_id,
        destination=job.destination,
        job_id=job.job_id,
        attempt=job.attempt,
        paths=paths,
    )


def probe_message(traits: TargetTraits, tools: Mapping[str, str]) -> equipment_service_pb2.DestinationProbe:
    """What a destination does with names, and versions by name of what brings data there."""
    return equipment_service_pb2.DestinationProbe(
        case_sensitive=traits.case_sensitive,
        max_name_bytes=traits.max_name_bytes,
        keeps_unicode_forms=traits.keeps_unicode_forms,
        keeps_any_bytes=traits.keeps_any_bytes,
        keeps_symlinks=traits.keeps_symlinks,
        keeps_empty_folders=traits.keeps_empty_folders,
        altered_names="" if traits.alters is None else traits.alters.pattern,
        tools=tool_messages(tools),
        mtime_step_ns=traits.mtime_step_ns,
        exclusive_rename=traits.exclusive_rename,
        hard_links=traits.hard_links,
        folder_sync=traits.folder_sync,
        keeps_far_times=traits.keeps_far_times,
        alters_case=traits.alters_case,
    )


def tool_messages(tools: Mapping[str, str]) -> Sequence[equipment_service_pb2.ToolVersion]:
    """Versions by name, sorted."""
    return [equipment_service_pb2.ToolVersion(name=name, version=version) for name, version in sorted(tools.items())]
