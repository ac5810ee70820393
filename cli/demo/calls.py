"""The demo's calls to the three services: plain gRPC, as any other lab system would make them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from grpc.aio import Channel
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from cli.connection import Connection
from cli.demo.stage import Stage
from cli.json_form import short_name
from cli.output import errors
from labferry.events.v1 import event_log_service_pb2_grpc
from labferry.lims.v1 import lims_service_pb2_grpc
from labferry.secrets.v1 import secrets_service_pb2_grpc
from labferry.sync.v1 import job_pb2, run_service_pb2_grpc, sync_service_pb2, sync_service_pb2_grpc
from libs.service_kit.identity import ServiceName


@dataclass(frozen=True, slots=True)
class Services:
    """Stubs of the three services, with the operator's token."""

    channels: dict[ServiceName, Channel]
    sync: Any
    runs: Any
    events: Any
    lims: Any
    secrets: Any


@asynccontextmanager
async def services(stage: Stage) -> AsyncIterator[Services]:
    connection = Connection.from_configuration(stage.config, None)
    async with AsyncExitStack() as stack:
        channels = {name: await stack.enter_async_context(connection.channel(name)) for name in ServiceName}
        engine = channels[ServiceName.SYNC_ENGINE]
        yield Services(
            channels=channels,
            sync=sync_service_pb2_grpc.SyncServiceStub(engine),
            runs=run_service_pb2_grpc.RunServiceStub(engine),
            events=event_log_service_pb2_grpc.EventLogServiceStub(engine),
            lims=lims_service_pb2_grpc.LimsServiceStub(channels[ServiceName.LIMS_GATEWAY]),
            secrets=secrets_service_pb2_grpc.SecretsServiceStub(channels[ServiceName.SECRETS]),
        )


async def health_and_reflection(channel: Channel) -> tuple[str, list[str]]:
    """The overall health, and the services that reflection names."""
    health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
        iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    )
    names: list[str] = []
    async for answer in call:
        names += [s.name for s in answer.list_services_response.service]
    return health_pb2.HealthCheckResponse.ServingStatus.Name(health.status), names


async def watch_until(
    calls: Services, job_id: str, done: Callable[[sync_service_pb2.JobUpdate], bool]
) -> sync_service_pb2.JobUpdate:
    """Follows one job with a progress bar until `done`."""
    columns = (TextColumn("  {task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=errors) as bar:
        task = bar.add_task("", total=None)
        stream = calls.sync.WatchJobs(sync_service_pb2.WatchJobsRequest(job_ids=[job_id]))
        update: sync_service_pb2.JobUpdate
        async for update in stream:
            progress = update.progress
            phase = short_name(job_pb2.ProgressPhase.DESCRIPTOR, progress.phase)
            state = short_name(job_pb2.JobState.DESCRIPTOR, update.job.state)
            bar.update(
                task, description=phase or state, completed=progress.bytes_done, total=progress.bytes_total or None
            )
            if done(update):
                if is_sealed(update):
                    bar.update(task, description=state, completed=update.job.byte_count, total=update.job.byte_count)
                stream.cancel()
                return update
    raise RuntimeError("the stream of job updates ended before the job did")


def is_sealed(update: sync_service_pb2.JobUpdate) -> bool:
    """Verified, and the destination holds the final metadata; or ended otherwise."""
    return update.job.sealed or update.job.state in (job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED)
