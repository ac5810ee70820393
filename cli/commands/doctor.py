"""labferry doctor: whether everything that a run needs on its way works, each part asked now."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

import grpc

from cli.connection import Connection
from cli.failure import EXIT_NO, run_command
from cli.options import ConfigOption, OutputOption, TokenOption, connect
from cli.output import OutputFormat, moment, print_json, print_table, size, visible
from labferry.events.v1 import event_log_service_pb2, event_log_service_pb2_grpc
from labferry.lims.v1 import lims_service_pb2, lims_service_pb2_grpc
from labferry.secrets.v1 import secrets_service_pb2, secrets_service_pb2_grpc
from labferry.sync.v1 import (
    equipment_service_pb2,
    equipment_service_pb2_grpc,
    staging_service_pb2,
    staging_service_pb2_grpc,
)
from libs.service_kit.identity import ServiceName
from libs.service_kit.settings import Settings
from libs.service_kit.time_span import shown_span

_ANSWER_SECONDS = 60.0
_MOST_AHEAD = timedelta(minutes=5)
"""A database, whose clock the recorded times may be by, is not always in step with the engine's machine."""


@dataclass(frozen=True, slots=True)
class Check:
    """One part and how it is."""

    part: str
    ok: bool
    detail: str


def doctor(
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """Ask every service, log and destination, tools included, how it is. Exit status 1 when something is not well."""

    async def work() -> int:
        connection = connect(config, token_file)
        checks = [check async for check in _all_checks(connection)]
        if output is OutputFormat.JSON:
            print_json([asdict(check) for check in checks])
        else:
            print_table(("part", "ok", "detail"), [(c.part, "yes" if c.ok else "NO", c.detail) for c in checks])
        return 0 if all(check.ok for check in checks) else EXIT_NO

    run_command(work())


async def _all_checks(connection: Connection) -> AsyncIterator[Check]:
    for service in (ServiceName.SECRETS, ServiceName.LIMS_GATEWAY, ServiceName.SYNC_ENGINE):
        async with connection.channel(service) as channel:
            try:
                for check in await _of_service(service, channel, connection.settings):
                    yield check
            except grpc.aio.AioRpcError as error:
                yield Check(service, False, f"{error.code().name}: {error.details()}")


async def _of_service(service: ServiceName, channel: grpc.aio.Channel, settings: Settings) -> Sequence[Check]:
    checks = await _log(service, channel)
    match service:
        case ServiceName.SECRETS:
            stub = secrets_service_pb2_grpc.SecretsServiceStub(channel)
            status = await stub.GetStatus(secrets_service_pb2.GetStatusRequest(), timeout=_ANSWER_SECONDS)
            said = _sealed(status) if status.sealed else "open"
            checks.append(Check("secrets", not status.sealed and not status.problem, status.problem or said))
            if not status.sealed and not status.problem:
                checks += await _overdue_secrets(stub)
        case ServiceName.LIMS_GATEWAY if settings.lims.endpoint:
            gateway = lims_service_pb2_grpc.LimsServiceStub(channel)
            checks += [await _lims(gateway, lims.endpoint, settings) for lims in settings.lims.all()]
        case ServiceName.SYNC_ENGINE:
            engine = equipment_service_pb2_grpc.EquipmentServiceStub(channel)
            answer = await engine.ListEquipment(equipment_service_pb2.ListEquipmentRequest(), timeout=_ANSWER_SECONDS)
            checks += [_destination(e.id, d) for e in answer.equipment for d in e.destinations]
            if settings.orchestrator.staging_root:
                checks.append(await _staging(channel))
        case _:
            pass
    return checks


def _sealed(status: secrets_service_pb2.GetStatusResponse) -> str:
    if status.initialized:
        return "sealed: labferry secret unseal"
    return "there are none yet: labferry secret initialize, then labferry secret set for each"


async def _overdue_secrets(secrets: Any) -> Sequence[Check]:
    """Nothing where the caller may not ask: of the lab's own names the engine's problems tell everybody."""
    try:
        listed = await secrets.ListSecrets(secrets_service_pb2.ListSecretsRequest(), timeout=_ANSWER_SECONDS)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.PERMISSION_DENIED:
            return ()
        raise
    return [
        Check(f"secret {s.username}", False, f"was to be replaced by {moment(s.rotate_by)}: labferry secret set")
        for s in listed.secrets
        if s.overdue
    ]


async def _lims(gateway: Any, endpoint: str, settings: Settings) -> Check:
    request = lims_service_pb2.CheckHealthRequest(endpoint=endpoint)
    health = await gateway.CheckHealth(request, timeout=_ANSWER_SECONDS)
    name = f"LIMS {endpoint}" if settings.lims.others else "LIMS"
    return Check(name, health.ok, health.reason or f"answers in {health.latency_ms:.0f} ms")


async def _log(service: ServiceName, channel: grpc.aio.Channel) -> list[Check]:
    stub = event_log_service_pb2_grpc.EventLogServiceStub(channel)
    info = await stub.GetServerInfo(event_log_service_pb2.GetServerInfoRequest(), timeout=_ANSWER_SECONDS)
    behind = [p.name for p in info.projections if p.position < info.head_position]
    late = f"; behind the log: {', '.join(behind)}" if behind else ""
    found = await stub.VerifyLog(event_log_service_pb2.VerifyLogRequest(skip_blobs=True), timeout=_ANSWER_SECONDS)
    said = f"intact, head {found.head_position}"
    if not found.intact:
        said = f"BROKEN at {found.first_bad_position}: {found.reason}"
    checks = [Check(service, True, f"version {info.version}{late}"), Check(f"log of {service}", found.intact, said)]
    if service is ServiceName.SYNC_ENGINE and found.intact and info.HasField("time"):
        checks.append(await _clock(stub, info))
    return checks


async def _clock(stub: Any, info: event_log_service_pb2.GetServerInfoResponse) -> Check:
    """Whether the log's time, which is never set back, lies ahead of the service's clock."""
    request = event_log_service_pb2.ReadEventsRequest(limit=1, backwards=True)
    async for batch in stub.ReadEvents(request, timeout=_ANSWER_SECONDS):
        for event in batch.events:
            ahead = event.recorded_time.ToDatetime() - info.time.ToDatetime()
            if ahead > _MOST_AHEAD:
                said = f"{moment(info.time)}; the newest event lies {shown_span(ahead)} ahead of it"
                delays = "what is recorded until then gets that time, and no run with such a pass is cleaned before"
                return Check("clock", False, f"{said}: {delays}. Put the clock right if it is behind")
    return Check("clock", True, f"{moment(info.time)}, not behind the log")


async def _staging(channel: grpc.aio.Channel) -> Check:
    stub = staging_service_pb2_grpc.StagingServiceStub(channel)
    page = await stub.ListStagedRuns(staging_service_pb2.ListStagedRunsRequest(page_size=1), timeout=_ANSWER_SECONDS)
    return Check("staging", page.driving, page.problem or f"this engine drives {page.staging_root}")


def _destination(equipment_id: str, status: equipment_service_pb2.DestinationStatus) -> Check:
    said = [status.transport]
    if status.problem:
        said.append(status.problem)
    said += [f"{tool.name} {visible(tool.version)}" for tool in status.tools]
    if status.HasField("free_bytes"):
        said.append(f"{size(status.free_bytes)} free")
    if status.HasField("probe"):
        probe = status.probe
        case = "tells" if probe.case_sensitive else "doesn't tell"
        said.append(f"{case} upper from lower case, names up to {probe.max_name_bytes} bytes")
        if probe.alters_case:
            said.append("keeps names in another case than they are written in, so nothing is brought there")
        if probe.HasField("keeps_symlinks") and not probe.keeps_symlinks:
            said.append("keeps no symlinks")
        if probe.altered_names:
            said.append("alters some names")
        if probe.HasField("keeps_far_times") and not probe.keeps_far_times:
            said.append("alters modification times before 1970 or after 2106")
    if status.HasField("probe_time"):
        said.append(f"probed {moment(status.probe_time)}")
    if status.suspected:
        said.append(f"under suspicion: {len(status.doubted_files)} files were wrong twice; labferry equipment trust")
    is_well = status.reachable and not status.suspected and not status.probe.alters_case
    return Check(f"{equipment_id} to {status.name}", is_well, ", ".join(said))
