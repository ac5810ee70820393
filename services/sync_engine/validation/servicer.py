"""labferry.sync.v1.ProblemService: translation between protobuf and the findings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from labferry.sync.v1 import finding_pb2, problem_service_pb2, problem_service_pb2_grpc
from libs.service_kit.identity import READERS
from libs.service_kit.server import PublishedService
from services.sync_engine.requests import Fields
from services.sync_engine.runs.run import RULES
from services.sync_engine.validation.finding_messages import TIERS, finding_message
from services.sync_engine.validation.problems import EquipmentScope, Everything, Problems, ProjectScope, RunScope, Scope

if TYPE_CHECKING:
    from grpc.aio import ServicerContext

    Context = ServicerContext[Any, Any]

FULL_NAME = "labferry.sync.v1.ProblemService"


class ProblemServicer(problem_service_pb2_grpc.ProblemServiceServicer):
    """QueryProblems."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems

    async def QueryProblems(
        self, request: problem_service_pb2.QueryProblemsRequest, context: Context
    ) -> AsyncIterator[finding_pb2.Finding]:
        fields = Fields()
        scope = _scope(request, fields)
        for rule in request.rules:
            fields.enum(rule, RULES.get(rule), "rules")
        for tier in request.tiers:
            fields.enum(tier, TIERS.get(tier), "tiers")
        fields.done()
        rules = {RULES.from_proto(v) for v in request.rules}
        tiers = {TIERS.from_proto(v) for v in request.tiers}
        for finding in await self._problems.query(scope):
            if (rules and finding.rule not in rules) or (tiers and finding.tier not in tiers):
                continue
            if finding.override_active and not request.include_overridden:
                continue
            yield finding_message(finding)


def _scope(request: problem_service_pb2.QueryProblemsRequest, fields: Fields) -> Scope:
    match request.WhichOneof("scope"):
        case "equipment_id":
            return EquipmentScope(request.equipment_id)
        case "project_path":
            equipment_id, slash, project = request.project_path.partition("/")
            if not slash or not project or "/" in project or project in (".", ".."):
                fields.wrong("project_path", 'must read "EQUIPMENT_ID/project"')
            return ProjectScope(equipment_id, project)
        case "run":
            fields.run(request.run)
            return RunScope(request.run)
        case _:
            return Everything()


def publish(problems: Problems) -> PublishedService:
    return PublishedService(
        full_name=FULL_NAME,
        servicer=ProblemServicer(problems),
        add_to_server=problem_service_pb2_grpc.add_ProblemServiceServicer_to_server,
        roles={"QueryProblems": READERS},
    )
