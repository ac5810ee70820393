"""EnqueueRuns: one answer a run, in order; one that can't be queued stops no other; a repeat gets the first answers."""

from __future__ import annotations

from typing import Any

import grpc

from labferry.sync.v1 import finding_pb2, sync_service_pb2
from tests.integration.sync_engine.running_engine import BLOCKED, QUEUED, Engine
from tests.integration.sync_engine.test_bad_input import refused

UNSPECIFIED = sync_service_pb2.ENQUEUE_OUTCOME_UNSPECIFIED


def _enqueue(engine: Engine, runs: list[str], request_id: str = "") -> Any:
    return engine.sync.EnqueueRuns(sync_service_pb2.EnqueueRunsRequest(runs=runs, request_id=request_id))


async def test_each_run_is_answered_in_order_and_all_arrive(engine: Engine) -> None:
    site = engine.site
    good = [site.make_run(leaf=f"Run_2026-04-17T14-{n:02}") for n in range(30)]
    blocked = site.make_run({"<sample_id>.tif": b"1"}, leaf="Run_2026-04-17T15-00")
    missing = "CONFOCAL_01/Cortex Q3 Pilot/Runs/Run_2026-01-01T00-00"
    runs = [*good[:15], missing, blocked, "../etc/Run_1", *good[15:], good[0]]
    answers = [answer async for answer in _enqueue(engine, runs)]
    assert [a.run for a in answers] == runs
    outcomes = {a.run: a for a in answers[:-1]}
    assert all(outcomes[run].outcome == QUEUED for run in good)
    assert outcomes[blocked].outcome == BLOCKED
    rules = {finding.rule for finding in outcomes[blocked].blocking_findings}
    assert finding_pb2.RULE_UNRESOLVED_PLACEHOLDER_TOKEN in rules
    assert (outcomes[missing].error.code, outcomes[missing].error.reason) == (5, "RUN_NOT_FOUND")
    assert outcomes[missing].outcome == UNSPECIFIED
    assert outcomes["../etc/Run_1"].error.reason == "PATH_OUTSIDE_ROOTS"
    assert answers[-1].outcome != UNSPECIFIED
    assert not answers[-1].HasField("error")
    for run in good:
        await engine.until_sealed(outcomes[run].job.job_id)


async def test_a_repeat_gets_the_first_answers_and_another_body_is_a_conflict(engine: Engine) -> None:
    runs = [engine.site.make_run(leaf=f"Run_2026-04-17T14-{n:02}") for n in range(3)]
    first = [a async for a in _enqueue(engine, runs, "tonight")]
    for answer in first:
        await engine.until_sealed(answer.job.job_id)
    again = [a async for a in _enqueue(engine, runs, "tonight")]
    assert [a.job.job_id for a in again] == [a.job.job_id for a in first]
    assert [a.outcome for a in again] == [QUEUED] * 3
    other = [a async for a in _enqueue(engine, runs[:2], "tonight")]
    assert [a.error.reason for a in other] == ["REQUEST_ID_REUSED"] * 2


async def test_what_is_wrong_with_the_request(engine: Engine) -> None:
    assert (await refused(_enqueue(engine, [])))[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert (await refused(_enqueue(engine, [""])))[0] is grpc.StatusCode.INVALID_ARGUMENT
