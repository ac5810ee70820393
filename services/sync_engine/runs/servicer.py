"""labferry.sync.v1.RunService: translation between protobuf and the runs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from labferry.sync.v1 import run_pb2, run_service_pb2, run_service_pb2_grpc
from libs.service_kit.identity import OPERATORS, READERS
from libs.service_kit.server import PublishedService
from services.sync_engine.jobs.job import SYNC_STATUSES
from services.sync_engine.requests import Fields, cause, request_key
from services.sync_engine.runs.listing import RunFilter
from services.sync_engine.runs.messages import override_message, override_messages
from services.sync_engine.runs.override_commands import OverrideCommands
from services.sync_engine.runs.queries import RunQueries
from services.sync_engine.runs.run import RULES
from services.sync_engine.runs.run_kinds import RUN_KINDS

if TYPE_CHECKING:
    from grpc.aio import ServicerContext

    Context = ServicerContext[Any, Any]

FULL_NAME = "labferry.sync.v1.RunService"


class RunServicer(run_service_pb2_grpc.RunServiceServicer):
    """Runs and their overrides."""

    def __init__(self, commands: OverrideCommands, queries: RunQueries) -> None:
        self._commands = commands
        self._queries = queries

    async def GetRun(self, request: run_service_pb2.GetRunRequest, context: Context) -> run_pb2.Run:
        fields = Fields()
        fields.run(request.run)
        fields.as_of(request.as_of)
        fields.done()
        return await self._queries.run(request.run, request.as_of if request.HasField("as_of") else None)

    async def ListRuns(
        self, request: run_service_pb2.ListRunsRequest, context: Context
    ) -> run_service_pb2.ListRunsResponse:
        fields = Fields()
        size = fields.page_size(request.page_size)
        kind = RUN_KINDS.get(request.run_kind) if request.run_kind else None
        if request.run_kind and kind is None:
            fields.wrong("run_kind", f"{request.run_kind} is not a known value")
        statuses = {SYNC_STATUSES.get(value) for value in request.sync_statuses}
        if None in statuses:
            fields.wrong("sync_statuses", "must be named values")
        after = fields.time(request.created_after, "created_after") if request.HasField("created_after") else None
        before = fields.time(request.created_before, "created_before") if request.HasField("created_before") else None
        fields.done()
        wanted = RunFilter(
            project=request.project,
            kind=kind,
            statuses=frozenset(s for s in statuses if s is not None),
            created_after=after,
            created_before=before,
        )
        runs, token = await self._queries.page(request.equipment_id, wanted, size, request.page_token)
        return run_service_pb2.ListRunsResponse(runs=runs, next_page_token=token)

    async def RecordOverride(
        self, request: run_service_pb2.RecordOverrideRequest, context: Context
    ) -> run_pb2.Override:
        fields = Fields()
        fields.run(request.run)
        fields.operator(request.operator)
        fields.reason(request.reason, required=True)
        fields.request_id(request.request_id)
        rule = RULES.get(request.problem_class)
        fields.enum(request.problem_class, rule, "problem_class")
        if rule is not None and not rule.can_be_overridden:
            fields.wrong("problem_class", f"{rule.value} can't be overridden")
        expires = None
        if request.HasField("expires_at"):
            expires = fields.future(request.expires_at, "expires_at", datetime.now(UTC))
        fields.done()
        if rule is None:
            raise AssertionError("an unknown class was refused above")
        key = request_key("RecordOverride", request.request_id, request)
        logged = await self._commands.record(
            request.run, rule, request.operator, request.reason, expires, cause(request.reason), key
        )
        return override_message(request.run, logged, frozenset({logged.entry.id or ""}))

    async def RevokeOverride(
        self, request: run_service_pb2.RevokeOverrideRequest, context: Context
    ) -> run_pb2.Override:
        fields = Fields()
        fields.run(request.run)
        fields.uuid(request.override_id, "override_id")
        fields.operator(request.operator)
        fields.reason(request.reason, required=True)
        fields.request_id(request.request_id)
        fields.done()
        key = request_key("RevokeOverride", request.request_id, request)
        logged = await self._commands.revoke(
            request.run, request.override_id, request.operator, request.reason, cause(request.reason), key
        )
        return override_message(request.run, logged, frozenset())

    async def ListOverrides(
        self, request: run_service_pb2.ListOverridesRequest, context: Context
    ) -> run_service_pb2.ListOverridesResponse:
        fields = Fields()
        fields.run(request.run)
        fields.as_of(request.as_of)
        fields.done()
        as_of = request.as_of if request.HasField("as_of") else None
        record, moment = await self._queries.record(request.run, as_of)
        return run_service_pb2.ListOverridesResponse(overrides=override_messages(record, moment))


def publish(commands: OverrideCommands, queries: RunQueries) -> PublishedService:
    return PublishedService(
        full_name=FULL_NAME,
        servicer=RunServicer(commands, queries),
        add_to_server=run_service_pb2_grpc.add_RunServiceServicer_to_server,
        roles={
            "GetRun": READERS,
            "ListRuns": READERS,
            "RecordOverride": OPERATORS,
            "RevokeOverride": OPERATORS,
            "ListOverrides": READERS,
        },
    )
