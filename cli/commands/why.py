"""labferry why: what holds a run back, since when, who can clear it, and what to type."""

from __future__ import annotations

from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from grpc.aio import Channel
from rich.text import Text

from cli.commands.tables import who
from cli.failure import EXIT_NO, run_command
from cli.options import ConfigOption, OutputOption, RunArgument, TokenOption, connect
from cli.output import OutputFormat, console, moment, print_json, visible
from cli.why import Answer, answers
from labferry.sync.v1 import (
    problem_service_pb2,
    problem_service_pb2_grpc,
    run_service_pb2,
    run_service_pb2_grpc,
    staging_service_pb2,
    staging_service_pb2_grpc,
)
from libs.run_tree.run_path import RunPath
from libs.service_kit.identity import ServiceName


def why(
    run: RunArgument,
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """Say what holds a run back. Exit status 1 when somebody has to do something about it."""

    async def work() -> int:
        async with connect(config, token_file).channel(ServiceName.SYNC_ENGINE) as channel:
            runs = run_service_pb2_grpc.RunServiceStub(channel)
            problems = problem_service_pb2_grpc.ProblemServiceStub(channel)
            found = await runs.GetRun(run_service_pb2.GetRunRequest(run=run))
            query = problem_service_pb2.QueryProblemsRequest(run=run)
            findings = [finding async for finding in problems.QueryProblems(query)]
            if not found.HasField("creation") and RunPath.parse(found.run).is_project:
                # What is wrong with a project's folder itself is said of the project alone.
                query = problem_service_pb2.QueryProblemsRequest(project_path=found.run)
                findings += [f async for f in problems.QueryProblems(query) if f.offending_path == found.run]
            staged = None if found.jobs else await _staged(channel, run)
        said = answers(found, findings, staged)
        if output is OutputFormat.JSON:
            print_json([_json(answer) for answer in said])
        else:
            for answer in said:
                _print(answer)
        return EXIT_NO if any(answer.needs_somebody for answer in said) else 0

    run_command(work())


async def _staged(channel: Channel, run: str) -> staging_service_pb2.StagedRun | None:
    """What staging says of a run that isn't queued yet."""
    staging = staging_service_pb2_grpc.StagingServiceStub(channel)
    waiting = (staging_service_pb2.STAGING_STATE_STAGING, staging_service_pb2.STAGING_STATE_COMPLETE)
    request = staging_service_pb2.ListStagedRunsRequest(states=waiting, page_size=1000)
    while True:
        page = await staging.ListStagedRuns(request)
        found = next((staged for staged in page.runs if staged.run == run), None)
        if found is not None or not page.next_page_token:
            return found
        request.page_token = page.next_page_token


def _json(answer: Answer) -> dict[str, Any]:
    return {
        "destination": answer.destination,
        "job_id": answer.job_id,
        "state": answer.state,
        "condition": answer.condition,
        "detail": answer.detail,
        "since": _time(answer.since),
        "who_can_clear": answer.who_can_clear,
        "next_try_time": _time(answer.next_try_time),
        "to_do": answer.to_do,
    }


def _time(stamp: Timestamp | None) -> str | None:
    return None if stamp is None else stamp.ToJsonString()


def _print(answer: Answer) -> None:
    _line(f"{answer.destination}: {answer.condition} (job {answer.job_id})" if answer.job_id else answer.condition)
    _line(f"  {visible(answer.detail)}")
    if answer.since is not None:
        _line(f"  since {moment(answer.since)}")
    if answer.who_can_clear:
        _line(f"  who can clear it: {who(answer.who_can_clear)}")
    if answer.next_try_time is not None:
        _line(f"  looked at again: {moment(answer.next_try_time)}")
    for step in answer.to_do:
        _line(f"  {'$' if step.startswith('labferry ') else '-'} {visible(step)}")


def _line(text: str) -> None:
    console.print(Text(text), soft_wrap=True)
