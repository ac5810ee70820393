"""A LIMS that is down or talks nonsense: unreachable, never an empty list; and the cache when there is one."""

from __future__ import annotations

import asyncio

import grpc

from labferry.lims.v1 import lims_service_pb2 as pb
from tests.integration.lims_gateway.running_lims import ROWS, Site, running_site
from tests.integration.secrets.running_service import refusal, running

UNREACHABLE = (grpc.StatusCode.UNAVAILABLE, "LIMS_UNREACHABLE")


NONSENSE = ("error_500", "html", "truncate", "drop")


async def test_nonsense_is_unreachable_and_then_the_cache_serves_marked_stale(site: Site) -> None:
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


async def test_the_cache_outlives_the_lims_and_a_sigkill() -> None:
    async with running_site(cache_ttl_hours=1e-9) as site:
        stub = await site.gateway.lims()
        assert (await stub.ListProjects(pb.ListProjectsRequest())).source == pb.SOURCE_LIVE
        await site.lims.stop()
        await site.gateway.kill()
        async with running(site.lab, "lims_gateway") as gateway:
            stub = await gateway.lims()
            cached = await stub.ListProjects(pb.ListProjectsRequest())
            assert (cached.source, cached.stale, len(cached.projects)) == (pb.SOURCE_CACHE, True, len(ROWS))
            found = await stub.GetProject(pb.GetProjectRequest(id="PROJ-0042"))
            assert (found.source, found.stale) == (pb.SOURCE_CACHE, True)
            missing = stub.GetProject(pb.GetProjectRequest(id="PROJ-9999"))
            assert await refusal(missing) == (grpc.StatusCode.NOT_FOUND, "PROJECT_NOT_FOUND")


async def test_a_damaged_cache_is_set_aside() -> None:
    async with running_site() as site:
        await (await site.gateway.lims()).ListProjects(pb.ListProjectsRequest())
        await site.gateway.stop()
        cache = site.lab.state_dir / "lims_gateway" / "projects.sqlite3"
        cache.write_bytes(b"not a database " * 1000)
        async with running(site.lab, "lims_gateway") as gateway:
            answer = await (await gateway.lims()).ListProjects(pb.ListProjectsRequest())
            assert (answer.source, len(answer.projects)) == (pb.SOURCE_LIVE, len(ROWS))
        assert "project_cache_damaged" in site.lab.log_text("lims_gateway")
        assert len(list(cache.parent.glob("projects.sqlite3.damaged-*"))) == 1


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
    answer = await (await site.gateway.lims()).ListProjects(pb.ListProjectsRequest())
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


async def test_a_slow_lims_times_out_and_holds_up_nobody_else(site: Site) -> None:
    stub = await site.gateway.lims()
    await stub.ListProjects(pb.ListProjectsRequest())
    await site.lims.behave("slow")
    slow = asyncio.ensure_future(stub.ListProjects(pb.ListProjectsRequest(refresh=True)))
    quick = await stub.ListProjects(pb.ListProjectsRequest())
    assert (quick.source, slow.done()) == (pb.SOURCE_CACHE, False)
    answer = await slow
    assert (answer.source, answer.stale) == (pb.SOURCE_CACHE, True)
    assert "15 seconds" in answer.upstream_failure
