"""labferry.sync.v1.StagingService: translation between protobuf and the staged runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from labferry.sync.v1 import staging_service_pb2 as pb
from labferry.sync.v1 import staging_service_pb2_grpc, sync_service_pb2
from libs.service_kit.identity import OPERATORS, READERS
from libs.service_kit.server import PublishedService
from services.sync_engine.cleanup.messages import cleaned_message
from services.sync_engine.requests import Fields, cause
from services.sync_engine.runs.run_kinds import RUN_KINDS
from services.sync_engine.staging.clearing import ClearedRun, ClearStagedRuns
from services.sync_engine.staging.completeness import SIGNALS
from services.sync_engine.staging.staged_list import StagedList
from services.sync_engine.staging.staged_run import HOLDS, STATES, StagedRun
from services.sync_engine.staging.staging_folder import SightedEquipment

if TYPE_CHECKING:
    from grpc.aio import ServicerContext

    Context = ServicerContext[Any, Any]

FULL_NAME = "labferry.sync.v1.StagingService"
_MOST_RUNS = 1000


class StagingServicer(staging_service_pb2_grpc.StagingServiceServicer):
    """`staging_root` empty: staging is off."""

    def __init__(self, staging_root: str, listing: StagedList, clear: ClearStagedRuns) -> None:
        self._staging_root = staging_root
        self._listing = listing
        self._clear = clear

    async def ListStagedRuns(self, request: pb.ListStagedRunsRequest, context: Context) -> pb.ListStagedRunsResponse:
        fields = Fields()
        size = fields.page_size(request.page_size)
        states = {STATES.get(value) for value in request.states}
        if None in states:
            fields.wrong("states", "must be named values")
        fields.done()
        wanted = frozenset(state for state in states if state is not None)
        page = await self._listing.page(wanted, size, request.page_token)
        return pb.ListStagedRunsResponse(
            runs=[_staged(record) for record in page.runs],
            next_page_token=page.next_token,
            staging_root=self._staging_root,
            driving=not page.problem,
            problem=page.problem,
            equipment=[_equipment(sighted) for sighted in page.equipment],
        )

    async def ClearStagedRuns(self, request: pb.ClearStagedRunsRequest, context: Context) -> pb.ClearStagedRunsResponse:
        fields = Fields()
        if not request.runs:
            fields.wrong("runs", "is required: at least one run")
        elif len(request.runs) > _MOST_RUNS:
            fields.wrong("runs", f"holds more than {_MOST_RUNS} runs")
        for number, run in enumerate(request.runs[:_MOST_RUNS]):
            fields.run(run, f"runs[{number}]")
        fields.reason(request.reason, required=not request.dry_run)
        fields.done()
        cleared = await self._clear.run(list(dict.fromkeys(request.runs)), request.dry_run, cause(request.reason))
        return pb.ClearStagedRunsResponse(runs=[_cleared(one) for one in cleared])


def _staged(record: StagedRun) -> pb.StagedRun:
    message = pb.StagedRun(
        run=record.run,
        equipment_id=record.equipment_id,
        project=record.project,
        run_kind=RUN_KINDS.to_proto(record.run_kind),
        file_count=record.file_count,
        byte_count=record.byte_count,
        job_ids=record.job_ids,
        nas_path=record.nas_path,
    )
    if record.steps:
        message.state = STATES.to_proto(record.steps[-1].state)
        message.state_time.FromDatetime(record.steps[-1].at)
    if record.held is not None:
        message.hold = HOLDS.to_proto(record.held.hold)
        message.hold_detail = record.held.detail
    return message


def _equipment(sighted: SightedEquipment) -> pb.StagedEquipment:
    message = pb.StagedEquipment(
        equipment_id=sighted.equipment_id, configured=sighted.configured, label=sighted.label, host=sighted.host
    )
    if sighted.signal is not None:
        message.completeness_signal = SIGNALS.to_proto(sighted.signal.kind)
        message.signal_file = sighted.signal.file_name
    return message


def _cleared(one: ClearedRun) -> pb.ClearedRun:
    cleaned: sync_service_pb2.CleanRunResponse = cleaned_message(one.cleaned)
    return pb.ClearedRun(
        run=one.run,
        cleared=cleaned.cleaned,
        interlocks=cleaned.interlocks,
        file_count=cleaned.file_count,
        byte_count=cleaned.byte_count,
        gone_count=cleaned.gone_count,
        gone_byte_count=cleaned.gone_byte_count,
        remaining=cleaned.remaining,
        problem=one.problem,
    )


def publish(servicer: StagingServicer) -> PublishedService:
    return PublishedService(
        full_name=FULL_NAME,
        servicer=servicer,
        add_to_server=staging_service_pb2_grpc.add_StagingServiceServicer_to_server,
        roles={"ListStagedRuns": READERS, "ClearStagedRuns": OPERATORS},
        unbounded=frozenset({"ClearStagedRuns"}),
    )
