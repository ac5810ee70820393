"""A sync engine as a real process, with a lab and a NAS of its own, driven through its gRPC API."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labferry.events.v1 import event_log_service_pb2, event_log_service_pb2_grpc, event_pb2
from labferry.sync.v1 import (
    equipment_service_pb2_grpc,
    job_pb2,
    problem_service_pb2_grpc,
    run_service_pb2,
    run_service_pb2_grpc,
    staging_service_pb2,
    staging_service_pb2_grpc,
    sync_service_pb2,
    sync_service_pb2_grpc,
)
from tests.integration.secrets.running_service import Lab, RunningService, new_lab, start

EQUIPMENT = "CONFOCAL_01"
PROJECT = "Cortex Q3 Pilot"
PATIENCE = 60.0
QUEUED = sync_service_pb2.ENQUEUE_OUTCOME_QUEUED
BLOCKED = sync_service_pb2.ENQUEUE_OUTCOME_BLOCKED

Files = Mapping[str | bytes, bytes]


def creation_document(**fields: Any) -> dict[str, Any]:
    """A run's creation.json as the wizard writes it: fields equal to their default are left out."""
    return {
        "schema_version": "1.8",
        "created_at": "2026-04-17T14:32:00Z",
        "created_by": "asmith",
        "level": "run",
        "run_kind": "experimental",
        "lims_project": {"uid": "p-1", "short_id": "PROJ-0042", "name_at_creation": PROJECT},
        "template": {"name": "confocal", "version": "2.1", "source_path": "/nowhere", "run_scope": "both"},
        "variables": {},
        "paths": {"local": "", "nas": ""},
        "plugins_applied": [],
        **fields,
    }


@dataclass(frozen=True)
class Site:
    """One workstation with its NAS. `home` holds both where another machine shares them; else the lab's own folder."""

    lab: Lab
    home: Path | None = None

    @property
    def local_root(self) -> Path:
        return (self.home or self.lab.folder) / "lab"

    def nas(self, equipment: str = EQUIPMENT, destination: str = "nas") -> Path:
        return (self.home or self.lab.folder) / destination / equipment

    def local(self, run: str) -> Path:
        return self.local_root / run

    def at_nas(self, run: str, destination: str = "nas") -> Path:
        equipment, _, below = run.partition("/")
        return self.nas(equipment, destination) / below

    def equip(self, equipment: str = EQUIPMENT, **settings: Any) -> None:
        """Configures an equipment, and makes its folders."""
        (self.local_root / equipment).mkdir(parents=True, exist_ok=True)
        self.nas(equipment).mkdir(parents=True, exist_ok=True)
        entry = {"id": equipment, "local_root": str(self.local_root)}
        if "destinations" not in settings:
            entry["transport"] = {"type": "mounted", "path": str(self.nas(equipment)), **settings.pop("transport", {})}
        self.lab.settings.setdefault("equipment", []).append({**entry, **settings})

    def make_run(
        self,
        files: Files | None = None,
        *,
        leaf: str = "Run_2026-04-17T14-32",
        equipment: str = EQUIPMENT,
        creation: dict[str, Any] | None = None,
    ) -> str:
        """A run with these files, and a creation.json unless `creation` is {}."""
        run = f"{equipment}/{PROJECT}/Runs/{leaf}"
        folder = self.local(run)
        for name, content in (files if files is not None else {"a.tif": b"pixels", "sub/b.csv": b"1,2\n"}).items():
            path = os.path.join(os.fsencode(folder), os.fsencode(name))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(content)
        if creation != {}:
            self.write_creation(run, creation or creation_document())
        return run

    def creation_path(self, run: str) -> Path:
        return self.local(run) / ".exlab-wizard" / "creation.json"

    def write_creation(self, run: str, document: dict[str, Any]) -> None:
        self.creation_path(run).parent.mkdir(parents=True, exist_ok=True)
        self.creation_path(run).write_text(json.dumps(document), encoding="utf-8")

    def creation(self, run: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.creation_path(run).read_text(encoding="utf-8"))
        return document

    async def until_sync_status(self, run: str, status: str) -> None:
        """The engine writes the file behind its log: it says so soon, though perhaps not yet."""
        async with asyncio.timeout(PATIENCE):
            while self.creation(run).get("sync_status", "pending") != status:
                await asyncio.sleep(0.02)


@dataclass
class Engine:
    """A running engine and its stubs, with the operator's token."""

    site: Site
    service: RunningService
    sync: Any
    runs: Any
    problems: Any
    equipment: Any
    staging: Any
    log: Any

    async def enqueue(self, run: str, **fields: Any) -> sync_service_pb2.EnqueueRunResponse:
        answer: sync_service_pb2.EnqueueRunResponse = await self.sync.EnqueueRun(
            sync_service_pb2.EnqueueRunRequest(run=run, **fields)
        )
        return answer

    async def job(self, job_id: str) -> job_pb2.Job:
        job: job_pb2.Job = await self.sync.GetJob(sync_service_pb2.GetJobRequest(job_id=job_id))
        return job

    async def until(
        self, job_id: str, wanted: Callable[[sync_service_pb2.JobUpdate], bool], patience: float = PATIENCE
    ) -> job_pb2.Job:
        """Watches a job until an update is what is wanted; fails loudly when none ever is."""
        last: sync_service_pb2.JobUpdate | None = None
        try:
            async with asyncio.timeout(patience):
                stream = self.sync.WatchJobs(sync_service_pb2.WatchJobsRequest(job_ids=[job_id]))
                async for update in stream:
                    last = update
                    if wanted(update):
                        stream.cancel()
                        return update.job
        except TimeoutError:
            raise AssertionError(f"waited in vain; the last update was {last}") from None
        raise AssertionError(f"the stream ended; the last update was {last}")

    async def until_sealed(self, job_id: str, patience: float = PATIENCE) -> job_pb2.Job:
        def ended(update: sync_service_pb2.JobUpdate) -> bool:
            return update.job.sealed or update.job.state == job_pb2.JOB_STATE_FAILED

        job = await self.until(job_id, ended, patience)
        assert job.sealed, job
        return job

    async def until_state(self, job_id: str, state: int) -> job_pb2.Job:
        return await self.until(job_id, lambda u: u.job.state == state)

    async def until_copying(self, job_id: str) -> job_pb2.Job:
        """Until bytes of the job's files are on their way."""
        return await self.until(job_id, lambda u: u.progress.bytes_done > 0)

    async def steer(self, method: str, job_id: str, **fields: Any) -> job_pb2.Job:
        """PauseJob, ResumeJob, CancelJob, RetryJob or SetJobPriority."""
        request = getattr(sync_service_pb2, f"{method}Request")
        job: job_pb2.Job = await getattr(self.sync, method)(request(job_id=job_id, reason="because", **fields))
        return job

    async def steer_all(self, command: int, **scope: Any) -> list[str]:
        """SteerJobs; the ids of the jobs that it changed, sorted."""
        request = sync_service_pb2.SteerJobsRequest(command=command, reason="because", **scope)  # type: ignore[arg-type]
        return sorted([job.job_id async for job in self.sync.SteerJobs(request)])

    async def until_event(self, stream: str, event_type: str, after: int = 0) -> None:
        """Until the log holds an event of this type in this stream, behind a position."""
        request = event_log_service_pb2.SubscribeEventsRequest(after_position=after, stream_prefix=stream)
        try:
            async with asyncio.timeout(PATIENCE):
                following = self.log.SubscribeEvents(request)
                async for step in following:
                    if any(e.stream == stream and e.type == event_type for e in step.events.events):
                        following.cancel()
                        return
        except TimeoutError:
            raise AssertionError(f"no {event_type} came in {stream}") from None

    async def until_failed(self, job_id: str) -> job_pb2.Job:
        return await self.until(job_id, lambda u: u.job.state == job_pb2.JOB_STATE_FAILED)

    async def until_waiting(self, job_id: str, condition: int) -> job_pb2.Job:
        return await self.until(job_id, lambda u: any(w.condition == condition for w in u.job.waiting_on))

    async def bring(self, run: str, patience: float = PATIENCE) -> job_pb2.Job:
        """Queues a run and waits until it is sealed."""
        answer = await self.enqueue(run)
        assert answer.outcome == QUEUED, answer
        return await self.until_sealed(answer.job.job_id, patience)

    async def run(self, run: str) -> Any:
        return await self.runs.GetRun(run_service_pb2.GetRunRequest(run=run))

    async def override(self, run: str, rule: int, **fields: Any) -> Any:
        return await self.runs.RecordOverride(
            run_service_pb2.RecordOverrideRequest(
                **{"run": run, "problem_class": rule, "operator": "asmith", "reason": "meant", **fields}
            )
        )

    async def overrides(self, run: str) -> list[Any]:
        answer = await self.runs.ListOverrides(run_service_pb2.ListOverridesRequest(run=run))
        return list(answer.overrides)

    async def staged(self, **wanted: Any) -> staging_service_pb2.ListStagedRunsResponse:
        answer: staging_service_pb2.ListStagedRunsResponse = await self.staging.ListStagedRuns(
            staging_service_pb2.ListStagedRunsRequest(**wanted)
        )
        return answer

    async def events(self) -> list[event_pb2.Event]:
        return await self.service.events()

    async def event_types(self, stream: str) -> list[str]:
        return [e.type for e in await self.events() if e.stream == stream]

    async def kill(self) -> None:
        await self.service.kill()


@asynccontextmanager
async def new_site() -> AsyncIterator[Site]:
    async with new_lab() as lab:
        lab.settings["secrets"] = {"backend": "encrypted_file"}
        yield Site(lab)


async def start_engine(site: Site, *, module: str = "") -> Engine:
    service = await start(site.lab, "sync_engine", module=module)
    channel = await service.channel("operator")
    return Engine(
        site=site,
        service=service,
        sync=sync_service_pb2_grpc.SyncServiceStub(channel),
        runs=run_service_pb2_grpc.RunServiceStub(channel),
        problems=problem_service_pb2_grpc.ProblemServiceStub(channel),
        equipment=equipment_service_pb2_grpc.EquipmentServiceStub(channel),
        staging=staging_service_pb2_grpc.StagingServiceStub(channel),
        log=event_log_service_pb2_grpc.EventLogServiceStub(channel),
    )


@asynccontextmanager
async def running_engine(site: Site) -> AsyncIterator[Engine]:
    engine = await start_engine(site)
    try:
        yield engine
    finally:
        if engine.service.process.returncode is None:
            assert await engine.service.stop() == 0


def same_tree(source: Path, copy: Path) -> None:
    """Every data file is there with the same content and modification time, and none besides."""
    assert _tree(source) == _tree(copy)


def _tree(folder: Path) -> dict[bytes, tuple[bytes, int]]:
    found: dict[bytes, tuple[bytes, int]] = {}
    for parent, folders, names in os.walk(os.fsencode(folder)):
        if b".exlab-wizard" in folders:
            folders.remove(b".exlab-wizard")
        for name in names:
            path = os.path.join(parent, name)
            relative = os.path.relpath(path, os.fsencode(folder))
            if os.path.islink(path):
                found[relative] = (b"link to " + os.readlink(path), 0)
            else:
                with open(path, "rb") as file:
                    found[relative] = (file.read(), os.stat(path).st_mtime_ns)
        for name in folders:
            if not os.listdir(os.path.join(parent, name)):
                found[os.path.relpath(os.path.join(parent, name), os.fsencode(folder))] = (b"empty folder", 0)
    return found


def sha256sum_agrees(folder: Path) -> int:
    """The real sha256sum, on the manifest in a run's folder. How many files it checked."""
    command = ["sha256sum", "-c", "--strict", ".exlab-wizard/checksums.sha256"]
    result = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr.decode(errors="replace")
    return result.stdout.count(b": OK\n")
