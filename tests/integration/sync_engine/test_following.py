"""Watching jobs and following events: first what is, then each change, resumed without a gap or a duplicate."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import grpc
import pytest

from labferry.events.v1 import event_log_service_pb2
from labferry.sync.v1 import finding_pb2, job_pb2, problem_service_pb2, sync_service_pb2
from tests.integration.secrets.running_service import error_info
from tests.integration.sync_engine.running_engine import (
    EQUIPMENT,
    PROJECT,
    Engine,
    Site,
    running_engine,
    start_engine,
)

SERVICES = ("SyncService", "RunService", "ProblemService")


async def test_watching_shows_the_present_and_each_state_with_progress(site: Site) -> None:
    site.lab.settings["equipment"].clear()
    site.equip(transport={"bandwidth": {"upload_mbps": 160}})
    async with running_engine(site) as engine:
        run = site.make_run({f"{n}.h5": bytes(2_000_000) for n in range(10)})
        job_id = (await engine.enqueue(run)).job.job_id
        updates: list[sync_service_pb2.JobUpdate] = []
        await engine.until(job_id, lambda u: updates.append(u) or u.job.sealed)  # type: ignore[func-returns-value]
        revisions = [u.job.revision for u in updates]
        assert revisions == sorted(revisions)
        progress = [u.progress for u in updates if u.progress.phase == job_pb2.PROGRESS_PHASE_COPYING]
        assert progress[-1].bytes_total == 20_000_000
        done = [p.bytes_done for p in progress]
        assert done == sorted(done)
        assert any(0 < d < 20_000_000 for d in done)


async def test_a_watch_resumed_by_its_token_shows_only_what_changed_since(engine: Engine) -> None:
    first = await engine.bring(engine.site.make_run())
    second = engine.site.make_run(leaf="Run_2026-04-17T15-00")
    stream = engine.sync.WatchJobs(sync_service_pb2.WatchJobsRequest())
    token = (await stream.read()).resume_token
    stream.cancel()
    answer = await engine.enqueue(second)
    resumed = engine.sync.WatchJobs(sync_service_pb2.WatchJobsRequest(resume_token=token))
    update = await resumed.read()
    assert update.job.job_id == answer.job.job_id != first.job_id
    resumed.cancel()


async def test_resume_tokens_that_can_not_be_followed(engine: Engine) -> None:
    store_id = (await engine.log.GetServerInfo(event_log_service_pb2.GetServerInfoRequest())).store_id
    assert await refused_token(engine, "other-log:7") == {
        "reason": "FOREIGN_CURSOR",
        "store_id": store_id,
        "cursor_store_id": "other-log",
    }
    assert await refused_token(engine, f"{store_id}:1000") == {
        "reason": "POSITION_BEYOND_HEAD",
        "position": "1000",
        "head_position": "1",
    }


async def refused_token(engine: Engine, token: str) -> dict[str, str]:
    """Why a token is refused, and the metadata."""
    request = sync_service_pb2.WatchJobsRequest(resume_token=base64.b64encode(token.encode()).decode())
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await engine.sync.WatchJobs(request).read()
    info = error_info(refusal.value)
    return {"reason": info.reason, **info.metadata}


async def test_streams_end_when_the_engine_drains_and_say_so(site: Site) -> None:
    engine = await start_engine(site)
    jobs = engine.sync.WatchJobs(sync_service_pb2.WatchJobsRequest())
    events = engine.log.SubscribeEvents(event_log_service_pb2.SubscribeEventsRequest(after_position=0))
    await events.read()
    reading = [asyncio.ensure_future(_to_the_end(s)) for s in (jobs, events)]
    engine.service.process.terminate()
    codes = await asyncio.gather(*reading)
    assert codes == [grpc.StatusCode.UNAVAILABLE] * 2
    assert await engine.service.ended() == 0


async def _to_the_end(stream: Any) -> grpc.StatusCode:
    try:
        async for _ in stream:
            pass
    except grpc.aio.AioRpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK


async def test_events_are_followed_across_a_restart_without_gap_or_duplicate(site: Site) -> None:
    seen: list[int] = []
    engine = await start_engine(site)
    await engine.bring(site.make_run())
    stream = engine.log.SubscribeEvents(event_log_service_pb2.SubscribeEventsRequest(after_position=0))
    while len(seen) < 4:
        seen += [e.position for e in (await stream.read()).events.events]
    await engine.kill()
    async with running_engine(site) as engine:
        await engine.bring(site.make_run(leaf="Run_2026-04-17T15-00"))
        request = event_log_service_pb2.SubscribeEventsRequest(after_position=seen[-1])
        stream = engine.log.SubscribeEvents(request)
        async for step in stream:
            seen += [e.position for e in step.events.events]
            if step.WhichOneof("content") == "caught_up":
                stream.cancel()
                break
        head = (await engine.log.GetServerInfo(event_log_service_pb2.GetServerInfoRequest())).head_position
        assert seen == list(range(1, head + 1))


async def test_jobs_are_listed_in_pages_and_by_filter(engine: Engine) -> None:
    runs = [engine.site.make_run({"f": b"x"}, leaf=f"Run_2026-04-17T14-{n:02}") for n in range(7)]
    ids = [(await engine.enqueue(run)).job.job_id for run in runs]
    for job_id in ids:
        await engine.until_sealed(job_id)
    listed: list[str] = []
    token = ""
    while True:
        page = await engine.sync.ListJobs(sync_service_pb2.ListJobsRequest(page_size=3, page_token=token))
        listed += [j.job_id for j in page.jobs]
        token = page.next_page_token
        if not token:
            break
    assert listed == ids

    async def count(**fields: Any) -> int:
        answer = await engine.sync.ListJobs(sync_service_pb2.ListJobsRequest(**fields))
        return len(answer.jobs)

    assert await count(run=runs[2]) == 1
    assert await count(equipment_id="OTHER") == 0
    assert await count(states=[job_pb2.JOB_STATE_VERIFIED]) == 7
    assert await count(states=[job_pb2.JOB_STATE_FAILED]) == 0


async def test_get_job_as_of_an_earlier_position(engine: Engine) -> None:
    answer = await engine.enqueue(engine.site.make_run())
    job_id = answer.job.job_id
    await engine.until_sealed(job_id)
    events = [e for e in await engine.events() if e.stream == f"job-{job_id}"]
    states = []
    for event in events:
        request = sync_service_pb2.GetJobRequest(job_id=job_id)
        request.as_of.position = event.position
        states.append((await engine.sync.GetJob(request)).state)
    assert states == [
        job_pb2.JOB_STATE_QUEUED,
        job_pb2.JOB_STATE_RUNNING,
        job_pb2.JOB_STATE_RUNNING,
        job_pb2.JOB_STATE_AWAITING_VERIFY,
        job_pb2.JOB_STATE_VERIFIED,
        job_pb2.JOB_STATE_VERIFIED,
    ]
    by_time = sync_service_pb2.GetJobRequest(job_id=job_id)
    by_time.as_of.time.CopyFrom(events[1].recorded_time)
    assert (await engine.sync.GetJob(by_time)).state >= job_pb2.JOB_STATE_RUNNING


async def test_problems_of_every_scope_in_one_order(engine: Engine) -> None:
    site = engine.site
    good = site.make_run()
    bad = site.make_run({"<sample_id>.txt": b"1", "CON": b"2", "{{ x }}/f": b"3"}, leaf="Run_2026-04-17T16-00")

    async def query(**fields: Any) -> list[finding_pb2.Finding]:
        request = problem_service_pb2.QueryProblemsRequest(tiers=[finding_pb2.TIER_HARD], **fields)
        return [f async for f in engine.problems.QueryProblems(request)]

    everything = await query()
    assert {f.run_path for f in everything} == {bad}
    assert {f.rule for f in everything} == {
        finding_pb2.RULE_UNRESOLVED_PLACEHOLDER_TOKEN,
        finding_pb2.RULE_RESERVED_FILESYSTEM_NAME,
        finding_pb2.RULE_LEFTOVER_JINJA_MARKER,
        finding_pb2.RULE_ILLEGAL_FILESYSTEM_CHARACTER,
    }
    for scope in ({"equipment_id": EQUIPMENT}, {"project_path": f"{EQUIPMENT}/{PROJECT}"}, {"run": bad}):
        assert await query(**scope) == everything
    assert await query(run=good) == []
    await engine.override(bad, finding_pb2.RULE_RESERVED_FILESYSTEM_NAME)
    assert len(await query()) == len(everything) - 1
    with_overridden = await query(include_overridden=True)
    assert [f.rule for f in with_overridden if f.override_active] == [finding_pb2.RULE_RESERVED_FILESYSTEM_NAME]
    only = await query(rules=[finding_pb2.RULE_LEFTOVER_JINJA_MARKER])
    assert [f.offending_path for f in only] == [f"{bad}/{{{{ x }}}}"]


async def test_no_call_without_an_identity_and_none_beyond_its_roles(engine: Engine) -> None:
    run = engine.site.make_run()
    nobody = await engine.service.channel(None)
    for path in (
        "/labferry.sync.v1.SyncService/EnqueueRun",
        "/labferry.sync.v1.RunService/GetRun",
        "/labferry.events.v1.EventLogService/GetServerInfo",
    ):
        try:
            await nobody.unary_unary(path)(b"")
        except grpc.aio.AioRpcError as error:
            assert error.code() == grpc.StatusCode.UNAUTHENTICATED
            assert error_info(error).reason == "IDENTITY_REQUIRED"
        else:
            raise AssertionError(f"{path} answered a caller without a token")
    gateway = await engine.service.channel("lims_gateway")
    enqueue = gateway.unary_unary(
        "/labferry.sync.v1.SyncService/EnqueueRun",
        request_serializer=sync_service_pb2.EnqueueRunRequest.SerializeToString,
    )
    try:
        await enqueue(sync_service_pb2.EnqueueRunRequest(run=run))
    except grpc.aio.AioRpcError as error:
        assert error.code() == grpc.StatusCode.PERMISSION_DENIED
        assert error_info(error).reason == "ROLE_REQUIRED"
    else:
        raise AssertionError("another service could queue a run")
    # That calls were refused is all that the log tells.
    assert {e.type for e in await engine.events()} <= {"log.store_created.v1", "log.calls_refused.v1"}


async def test_the_actor_is_the_servers_word(engine: Engine) -> None:
    run = engine.site.make_run()
    await engine.override(run, finding_pb2.RULE_LEFTOVER_JINJA_MARKER, operator="somebody else")
    recorded = (await engine.events())[-1]
    assert recorded.actor == "operator-1"
    assert recorded.reason == "meant"
    assert recorded.correlation_id
