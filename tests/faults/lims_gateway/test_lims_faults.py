"""A LIMS that is down or talks nonsense: unreachable, never an empty list; and the cache when there is one."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from cli.demo.lims_projects import make_rows
from labferry.lims.v1 import lims_service_pb2 as pb
from tests.integration.lims_gateway.running_lims import ROWS, Site, running_lims
from tests.integration.secrets.running_service import refusal, start

pytestmark = pytest.mark.asyncio(loop_scope="session")

UNREACHABLE = (grpc.StatusCode.UNAVAILABLE, "LIMS_UNREACHABLE")


NONSENSE = ("error_500", "html", "truncate", "drop", "redirect")


async def test_nonsense_is_unreachable_and_then_the_cache_serves_marked_stale(new_site: Site) -> None:
    site = new_site
    stub = await site.gateway.lims()
    for mode in NONSENSE:
        await site.lims.behave(mode)
        assert await refusal(stub.ListProjects(pb.ListProjectsRequest())) == UNREACHABLE
        assert await refusal(stub.GetProject(pb.GetProjectRequest(id="PROJ-0042"))) == UNREACHABLE
        health = await stub.CheckHealth(pb.CheckHealthRequest())
        assert (health.ok, bool(health.reason), health.latency_ms > 0) == (False, True, True)
    await site.lims.behave("ok")
    live = await stub.ListProjects(pb.ListProjectsRequest())
    for mode in NONSENSE:
        await site.lims.behave(mode)
        cached = await stub.ListProjects(pb.ListProjectsRequest(refresh=True))
        assert (cached.source, cached.stale) == (pb.SOURCE_CACHE, True), mode
        assert cached.freshness_time == live.freshness_time
        assert list(cached.projects) == list(live.projects)
        assert site.lims.address in cached.upstream_failure
    await site.lims.behave("ok")
    assert (await stub.ListProjects(pb.ListProjectsRequest(refresh=True))).source == pb.SOURCE_LIVE


async def test_the_cache_outlives_the_lims_and_a_sigkill(site: Site) -> None:
    async with running_lims(site.lab.folder) as lims:
        stub = await site.restart_gateway({"endpoint": lims.address, "cache_ttl_hours": 1e-9})
        assert (await stub.ListProjects(pb.ListProjectsRequest())).source == pb.SOURCE_LIVE
    await site.gateway.kill()
    site.gateway = await start(site.lab, "lims_gateway")
    stub = await site.gateway.lims()
    cached = await stub.ListProjects(pb.ListProjectsRequest())
    assert (cached.source, cached.stale, len(cached.projects)) == (pb.SOURCE_CACHE, True, len(ROWS))
    assert "no connection" in cached.upstream_failure
    found = await stub.GetProject(pb.GetProjectRequest(id="PROJ-0042"))
    assert (found.source, found.stale, found.upstream_failure) == (pb.SOURCE_CACHE, True, cached.upstream_failure)
    missing = stub.GetProject(pb.GetProjectRequest(id="PROJ-9999"))
    assert await refusal(missing) == (grpc.StatusCode.NOT_FOUND, "PROJECT_NOT_FOUND")


async def test_a_damaged_cache_is_set_aside_and_tells_no_news_again(new_site: Site) -> None:
    site = new_site
    await (await site.gateway.lims()).ListProjects(pb.ListProjectsRequest())
    told = [e.type for e in await site.gateway.events()]
    await site.gateway.stop()
    cache = site.lab.state_dir / "lims_gateway" / "projects.sqlite3"
    cache.write_bytes(b"not a database " * 1000)
    stub = await site.restart_gateway(forget=False)
    answer = await stub.ListProjects(pb.ListProjectsRequest())
    assert (answer.source, len(answer.projects)) == (pb.SOURCE_LIVE, len(ROWS))
    assert "project_cache_damaged" in site.gateway_log()
    assert len(list(cache.parent.glob("projects.sqlite3.damaged-*"))) == 1
    assert [e.type for e in await site.gateway.events()] == told


async def test_rows_that_lack_fields_are_skipped_and_counted(site: Site) -> None:
    good = ROWS[0]
    bad = [
        {k: v for k, v in good.items() if k != "uid"},
        {**ROWS[1], "name": None},
        {**ROWS[1], "id": "43"},
        {**ROWS[1], "status": "Sleeping"},
        {**ROWS[1], "created_at": "yesterday"},
        {**ROWS[1], "uid": good["uid"]},
        {**ROWS[1], "short_id": good["short_id"]},
        "no object",
        None,
    ]
    await site.lims.serve([good, *bad])
    answer = await (await site.gateway.lims()).ListProjects(pb.ListProjectsRequest(refresh=True))
    assert [p.name for p in answer.projects] == [good["name"]]
    assert answer.skipped_rows == len(bad)


async def test_vanished_and_renumbered_projects_leave_no_ghost(site: Site) -> None:
    stub = await site.gateway.lims()
    await stub.ListProjects(pb.ListProjectsRequest())
    await site.lims.serve([{**ROWS[0], "short_id": ROWS[1]["short_id"]}])
    answer = await stub.ListProjects(pb.ListProjectsRequest(refresh=True))
    assert [(p.uid, p.short_id) for p in answer.projects] == [(ROWS[0]["uid"], ROWS[1]["short_id"])]
    for gone in (ROWS[1]["uid"], ROWS[0]["short_id"]):
        missing = stub.GetProject(pb.GetProjectRequest(id=gone))
        assert await refusal(missing) == (grpc.StatusCode.NOT_FOUND, "PROJECT_NOT_FOUND")
    await site.lims.serve([])
    empty = await stub.ListProjects(pb.ListProjectsRequest(refresh=True))
    assert (list(empty.projects), empty.source) == ([], pb.SOURCE_LIVE)


@pytest.mark.slow
async def test_slow_answers_and_slow_bodies_time_out_and_hold_up_nobody_else(new_site: Site) -> None:
    """Both at once, since each takes the whole time limit: a LIMS that says nothing, and one whose body never ends."""
    site = new_site
    async with running_lims(site.lab.folder) as trickling:
        other = {"endpoint": trickling.address, "email": "ops@lab.example"}
        stub = await site.restart_gateway({"others": [other]})
        for endpoint in (site.lims.address, trickling.address):
            await stub.ListProjects(pb.ListProjectsRequest(endpoint=endpoint))
        await site.lims.behave("slow")
        await trickling.behave("slow_body")
        slow = [
            asyncio.ensure_future(stub.ListProjects(pb.ListProjectsRequest(endpoint=endpoint, refresh=True)))
            for endpoint in (site.lims.address, trickling.address)
        ]
        quick = await stub.ListProjects(pb.ListProjectsRequest())
        assert (quick.source, [s.done() for s in slow]) == (pb.SOURCE_CACHE, [False, False])
        for answer in await asyncio.gather(*slow):
            assert (answer.source, answer.stale, len(answer.projects)) == (pb.SOURCE_CACHE, True, len(ROWS))
            assert "15 seconds" in answer.upstream_failure


async def test_ten_thousand_projects_and_half_of_a_huge_answer(site: Site) -> None:
    stub = await site.gateway.lims()
    await site.lims.serve(make_rows(10_000))
    assert (await stub.RefreshProjects(pb.RefreshProjectsRequest())).count == 10_000
    request, uids = pb.ListProjectsRequest(page_size=1000), list[str]()
    while True:
        page = await stub.ListProjects(request)
        uids += [p.uid for p in page.projects]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert len(set(uids)) == len(uids) == 10_000
    await site.lims.behave("truncate")
    kept = await stub.ListProjects(pb.ListProjectsRequest(refresh=True))
    assert (kept.source, kept.stale, len(kept.projects)) == (pb.SOURCE_CACHE, True, 100)
