"""labferry problems: what validation finds on disk now."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.commands.tables import finding_rows
from cli.failure import EXIT_NO, run_command
from cli.options import ConfigOption, OutputOption, TokenOption, connect, enum_number
from cli.output import OutputFormat, print_messages, print_table
from labferry.sync.v1 import finding_pb2, problem_service_pb2, problem_service_pb2_grpc
from libs.service_kit.identity import ServiceName


def problems(
    equipment: Annotated[str, typer.Option(help="Only this equipment.")] = "",
    project: Annotated[str, typer.Option(help="Only this project: EQUIPMENT_ID/project.")] = "",
    run: Annotated[str, typer.Option(help="Only this run.")] = "",
    rule: Annotated[list[str] | None, typer.Option(help="Only this rule; may be repeated.")] = None,
    tier: Annotated[list[str] | None, typer.Option(help="hard or soft; may be repeated.")] = None,
    include_overridden: Annotated[bool, typer.Option(help="Findings with an active override too.")] = False,
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """List findings. Exit status 1 when there is a hard one without an override."""
    if sum(map(bool, (equipment, project, run))) > 1:
        raise typer.BadParameter("give one of --equipment, --project and --run")

    async def work() -> int:
        request = problem_service_pb2.QueryProblemsRequest(
            rules=[enum_number(finding_pb2.Rule.DESCRIPTOR, r, "--rule") for r in rule or ()],
            tiers=[enum_number(finding_pb2.Tier.DESCRIPTOR, t, "--tier") for t in tier or ()],
            include_overridden=include_overridden,
        )
        if equipment:
            request.equipment_id = equipment
        elif project:
            request.project_path = project
        elif run:
            request.run = run
        else:
            request.all.SetInParent()
        findings: list[finding_pb2.Finding] = []
        async with connect(config, token_file).channel(ServiceName.SYNC_ENGINE) as channel:
            async for finding in problem_service_pb2_grpc.ProblemServiceStub(channel).QueryProblems(request):
                findings.append(finding)
        if output is OutputFormat.JSON:
            print_messages(findings)
        else:
            print_table(*finding_rows(findings))
        hard = any(f.tier == finding_pb2.TIER_HARD and not f.override_active for f in findings)
        return EXIT_NO if hard else 0

    run_command(work())
