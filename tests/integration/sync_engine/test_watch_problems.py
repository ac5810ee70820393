"""WatchProblems: what is there, then each finding that comes or goes, resumed without a gap."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from labferry.sync.v1 import finding_pb2, problem_service_pb2
from tests.integration.sync_engine.running_engine import PATIENCE, Engine, Site, running_engine, start_engine
from tests.integration.sync_engine.test_bad_input import refused

Update = problem_service_pb2.ProblemUpdate


@asynccontextmanager
async def _watching(engine: Engine, **fields: Any) -> AsyncIterator[Any]:
    stream = engine.problems.WatchProblems(problem_service_pb2.WatchProblemsRequest(**fields))
    try:
        yield stream
    finally:
        stream.cancel()


async def _next(stream: Any) -> Update:
    async with asyncio.timeout(PATIENCE):
        update: Update = await anext(aiter(stream))
        return update


def _said(update: Update) -> tuple[str, str]:
    kind = update.WhichOneof("change") or ""
    finding: finding_pb2.Finding = getattr(update, kind)
    return kind, finding.offending_path.rpartition("/")[2]


async def test_findings_come_and_go(site: Site) -> None:
    run = site.make_run({"{{ x }}.tif": b"1"})
    async with running_engine(site) as engine, _watching(engine, run=run) as stream:
        assert _said(await _next(stream)) == ("added", "{{ x }}.tif")
        (site.local(run) / "aux").touch()
        assert _said(await _next(stream)) == ("added", "aux")
        (site.local(run) / "{{ x }}.tif").rename(site.local(run) / "x.tif")
        assert _said(await _next(stream)) == ("removed", "{{ x }}.tif")


async def test_an_override_changes_the_finding_soon_without_a_look_at_the_clock(engine: Engine) -> None:
    run = engine.site.make_run({"{{ x }}.tif": b"1"})
    async with _watching(engine, run=run) as stream:
        assert not (await _next(stream)).added.override_active
        await engine.override(run, finding_pb2.RULE_LEFTOVER_JINJA_MARKER)
        changes = [await _next(stream), await _next(stream)]
        assert [_said(c)[0] for c in changes] == ["removed", "added"]
        assert changes[1].added.override_active


async def test_a_watch_is_resumed_with_what_changed_meanwhile(engine: Engine) -> None:
    site = engine.site
    run = site.make_run({"{{ x }}.tif": b"1", "aux": b""})
    async with _watching(engine, run=run) as stream:
        first, second = await _next(stream), await _next(stream)
    async with _watching(engine, run=run, resume_token=first.resume_token) as again:
        told = [_said(await _next(again)), _said(await _next(again))]
        assert told == [_said(first), _said(second)], "cut off in the first list, it is begun anew"
    (site.local(run) / "aux").rename(site.local(run) / "fine")
    async with _watching(engine, run=run, resume_token=second.resume_token) as resumed:
        assert _said(await _next(resumed)) == ("removed", "aux")


async def test_after_a_restart_a_watch_begins_anew_and_says_so(site: Site) -> None:
    run = site.make_run({"{{ x }}.tif": b"1"})
    engine = await start_engine(site)
    async with _watching(engine, run=run) as stream:
        token = (await _next(stream)).resume_token
    await engine.kill()
    async with running_engine(site) as engine, _watching(engine, run=run, resume_token=token) as again:
        assert (await _next(again)).WhichOneof("change") == "reset"
        assert _said(await _next(again)) == ("added", "{{ x }}.tif")


async def test_it_ends_with_the_engine_and_refuses_what_is_not_there(engine: Engine) -> None:
    run = engine.site.make_run({"{{ x }}.tif": b"1"})
    missing = engine.problems.WatchProblems(problem_service_pb2.WatchProblemsRequest(run=run + "9"))
    assert (await refused(missing))[:2] == (grpc.StatusCode.NOT_FOUND, "RUN_NOT_FOUND")
    bad_token = engine.problems.WatchProblems(problem_service_pb2.WatchProblemsRequest(run=run, resume_token="x"))
    assert (await refused(bad_token))[0] is grpc.StatusCode.INVALID_ARGUMENT
    async with _watching(engine, run=run) as stream:
        await _next(stream)
        stopping = asyncio.create_task(engine.service.stop())
        try:
            await _next(stream)
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert await stopping == 0
