"""ListRuns: runs on disk and in the log, filtered, in pages that survive new runs."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from labferry.sync.v1 import run_pb2, run_service_pb2
from tests.integration.sync_engine.running_engine import Engine, Site, creation_document, running_engine
from tests.integration.sync_engine.test_bad_input import refused


async def _runs(engine: Engine, **fields: Any) -> list[str]:
    """All pages."""
    runs: list[str] = []
    token = ""
    while True:
        request = run_service_pb2.ListRunsRequest(page_token=token, **fields)
        page = await engine.runs.ListRuns(request)
        runs += [run.run for run in page.runs]
        token = page.next_page_token
        if not token:
            return runs


def _time(text: str) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(datetime.fromisoformat(text).astimezone(UTC))
    return stamp


async def test_every_run_in_order_and_by_every_filter(site: Site) -> None:
    site.equip("SCOPE_02")
    early = site.make_run(creation=creation_document(created_at="2026-01-01T00:00:00Z"))
    late = site.make_run(leaf="Run_2026-04-18T10-00", creation=creation_document(created_at="2026-03-01T00:00:00Z"))
    bare = site.make_run(leaf="Run_2026-04-19T10-00", creation={})
    other = site.make_run(equipment="SCOPE_02")
    test = "CONFOCAL_01/Other/TestRuns/TestRun_2026-04-17T14-32"
    (site.local(test)).mkdir(parents=True)
    site.write_creation(test, creation_document(run_kind="test"))
    async with running_engine(site) as engine:
        everything = [early, late, bare, test, other]
        assert await _runs(engine) == everything
        assert await _runs(engine, page_size=2) == everything
        assert await _runs(engine, equipment_id="SCOPE_02") == [other]
        assert await _runs(engine, project="Other") == [test]
        assert await _runs(engine, run_kind=run_pb2.RUN_KIND_TEST) == [test]
        since, until = _time("2026-01-01T00:00:00+00:00"), _time("2026-03-01T00:00:00+00:00")
        assert await _runs(engine, created_after=since, created_before=until) == [early]
        assert late in await _runs(engine, created_after=until)
        await engine.bring(late)
        assert await _runs(engine, sync_statuses=[run_pb2.SYNC_STATUS_SYNCED]) == [late]
        assert late not in await _runs(engine, sync_statuses=[run_pb2.SYNC_STATUS_PENDING])


async def test_a_run_that_is_gone_is_listed_as_the_log_knows_it(engine: Engine) -> None:
    run = engine.site.make_run()
    await engine.bring(run)
    shutil.rmtree(engine.site.local(run))
    page = await engine.runs.ListRuns(run_service_pb2.ListRunsRequest())
    (listed,) = page.runs
    assert (listed.run, listed.sync_status) == (run, run_pb2.SYNC_STATUS_SYNCED)
    assert not listed.HasField("creation")
    assert len(listed.jobs) == 1


async def test_a_page_token_survives_new_runs(engine: Engine) -> None:
    for minute in (10, 20, 30):
        engine.site.make_run(leaf=f"Run_2026-04-17T14-{minute}")
    first = await engine.runs.ListRuns(run_service_pb2.ListRunsRequest(page_size=2))
    engine.site.make_run(leaf="Run_2026-04-17T14-05")
    engine.site.make_run(leaf="Run_2026-04-17T14-25")
    rest = await engine.runs.ListRuns(run_service_pb2.ListRunsRequest(page_token=first.next_page_token))
    assert [run.run[-2:] for run in (*first.runs, *rest.runs)] == ["10", "20", "25", "30"]


async def test_what_is_wrong_with_the_request(engine: Engine) -> None:
    bad_token = engine.runs.ListRuns(run_service_pb2.ListRunsRequest(page_token="x"))
    assert (await refused(bad_token))[0] is grpc.StatusCode.INVALID_ARGUMENT
    bad_size = engine.runs.ListRuns(run_service_pb2.ListRunsRequest(page_size=1001))
    assert (await refused(bad_size))[0] is grpc.StatusCode.INVALID_ARGUMENT
    unknown = engine.runs.ListRuns(run_service_pb2.ListRunsRequest(equipment_id="NOWHERE"))
    assert (await refused(unknown))[:2] == (grpc.StatusCode.NOT_FOUND, "EQUIPMENT_NOT_CONFIGURED")
