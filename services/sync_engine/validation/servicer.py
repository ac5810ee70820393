"""labferry.sync.v1.ProblemService: translation between protobuf and the findings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import MessageToDict

from labferry.sync.v1 import finding_pb2, problem_service_pb2, problem_service_pb2_grpc
from libs.service_kit.identity import READERS
from libs.service_kit.server import PublishedService
from services.sync_engine.requests import Fields
from services.sync_engine.runs.run import RULES
from services.sync_engine.runs.run_kinds import RUN_KINDS
from services.sync_engine.validation.creation_mode import Proposal, check_proposal
from services.sync_engine.validation.finding_messages import TIERS, finding_message
from services.sync_engine.validation.problem_watch import ChangeKind, ProblemChange, ProblemWatch
from services.sync_engine.validation.problems import EquipmentScope, Everything, Problems, ProjectScope, RunScope, Scope
from services.sync_engine.validation.walk import AuditRules

if TYPE_CHECKING:
    from grpc.aio import ServicerContext

    Context = ServicerContext[Any, Any]

FULL_NAME = "labferry.sync.v1.ProblemService"


class ProblemServicer(problem_service_pb2_grpc.ProblemServiceServicer):
    """What is wrong with folders that are there, and with runs that are about to be made."""

    def __init__(self, problems: Problems, watch: ProblemWatch, rules: AuditRules) -> None:
        self._problems = problems
        self._watch = watch
        self._rules = rules

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

    async def WatchProblems(
        self, request: problem_service_pb2.WatchProblemsRequest, context: Context
    ) -> AsyncIterator[problem_service_pb2.ProblemUpdate]:
        fields = Fields()
        scope = _scope(request, fields)
        fields.done()
        async with aclosing(self._watch.follow(scope, request.resume_token)) as changes:
            async for change in changes:
                yield _update(change)

    async def ValidateCreation(
        self, request: problem_service_pb2.ValidateCreationRequest, context: Context
    ) -> problem_service_pb2.ValidateCreationResponse:
        fields = Fields()
        fields.run(request.proposed_path, "proposed_path")
        kind = RUN_KINDS.get(request.run_kind) if request.run_kind else None
        if request.run_kind and kind is None:
            fields.wrong("run_kind", f"{request.run_kind} is not a known value")
        fields.done()
        proposal = Proposal(
            path=request.proposed_path,
            run_kind=kind,
            file_names=tuple(request.file_names),
            file_contents=dict(request.file_contents),
            required_fields={*request.required_fields, *self._rules.required_fields},
            readme_fields=MessageToDict(request.readme_fields),
        )
        findings = check_proposal(proposal, self._rules.scan)
        return problem_service_pb2.ValidateCreationResponse(findings=[finding_message(f) for f in findings])


def _update(change: ProblemChange) -> problem_service_pb2.ProblemUpdate:
    message = problem_service_pb2.ProblemUpdate(resume_token=change.token)
    if change.finding is None:
        message.reset.SetInParent()
    elif change.kind is ChangeKind.ADDED:
        message.added.CopyFrom(finding_message(change.finding))
    else:
        message.removed.CopyFrom(finding_message(change.finding))
    return message


def _scope(
    request: problem_service_pb2.QueryProblemsRequest | problem_service_pb2.WatchProblemsRequest, fields: Fields
) -> Scope:
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


def publish(problems: Problems, watch: ProblemWatch, rules: AuditRules) -> PublishedService:
    return PublishedService(
        full_name=FULL_NAME,
        servicer=ProblemServicer(problems, watch, rules),
        add_to_server=problem_service_pb2_grpc.add_ProblemServiceServicer_to_server,
        roles={"QueryProblems": READERS, "WatchProblems": READERS, "ValidateCreation": READERS},
    )
