"""WatchProjects: what is known, then each change; across restarts, at its own pace, and with a clean end."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from labferry.lims.v1 import lims_service_pb2 as pb
from tests.integration.lims_gateway.running_lims import ROWS, Site
from tests.integration.secrets.running_service import error_info, refusal, wrong_fields

pytestmark = pytest.mark.asyncio(loop_scope="session")

DAY_NS = 86_400 * 10**9


async def read(call: Any) -> pb.WatchProjectsResponse:
    async with asyncio.timeout(60):
        message = await call.read()
    assert isinstance(message, pb.WatchProjectsResponse), message
    return message


async def until_in_step(call: Any) -> list[pb.WatchProjectsResponse]:
    """Everything up to the next in_step, that too."""
    told = [await read(call)]
    while told[-1].WhichOneof("update") != "in_step":
        told.append(await read(call))
    return told


def kinds(told: list[pb.WatchProjectsResponse]) -> list[str]:
    return [str(message.WhichOneof("update")) for message in told]


async def test_additions_changes_and_removals_are_told_with_old_and_new(site: Site) -> None:
    stub = await site.restart_gateway({"refresh_while_watched_minutes": 1000})
    call = stub.WatchProjects(pb.WatchProjectsRequest())
    beginning = await until_in_step(call)
    # Following had the LIMS read: nothing was known before, and nobody else had asked.
    if not beginning[-1].in_step.HasField("read_time"):
        assert kinds(beginning) == ["in_step"]
        beginning = await until_in_step(call)
    assert kinds(beginning) == ["added"] * len(ROWS) + ["in_step"]
    assert {m.added.uid: m.added.name for m in beginning[:-1]} == {r["uid"]: r["name"] for r in ROWS}
    assert beginning[0].added.created_time.seconds == 1_700_000_000
    assert beginning[-1].in_step.HasField("read_time")

    renamed = {**ROWS[0], "name": "Renamed", "short_id": "PROJ-0900"}
    finished = {**ROWS[2], "status": "Archived"}
    only_the_rest = {**ROWS[3], "contact_name": "Somebody else"}
    new = {**ROWS[0], "id": 901, "uid": "new", "short_id": "PROJ-0901", "name": "New"}
    await site.lims.serve([renamed, finished, only_the_rest, *ROWS[4:], new])
    await stub.RefreshProjects(pb.RefreshProjectsRequest())
    told = await until_in_step(call)
    assert kinds(told) == ["removed", "changed", "changed", "changed", "added", "in_step"]
    assert (told[0].removed.uid, told[0].removed.name) == (ROWS[1]["uid"], ROWS[1]["name"])
    assert (told[1].changed.old.name, told[1].changed.new.name) == (ROWS[0]["name"], "Renamed")
    assert (told[1].changed.old.short_id, told[1].changed.new.short_id) == ("PROJ-0042", "PROJ-0900")
    assert told[2].changed.new.status == pb.PROJECT_STATUS_ARCHIVED
    assert (told[3].changed.old, told[4].added.name) == (told[3].changed.new, "New")

    events = len(await site.gateway.events())
    await stub.RefreshProjects(pb.RefreshProjectsRequest())
    assert len(await site.gateway.events()) == events
    last = told[-1].resume_token
    stub = await site.restart_gateway({"refresh_while_watched_minutes": 1000}, forget=False)
    await site.lims.serve(ROWS[4:])
    await stub.RefreshProjects(pb.RefreshProjectsRequest())
    later = await until_in_step(stub.WatchProjects(pb.WatchProjectsRequest(resume_token=last)))
    assert kinds(later) == ["removed"] * 4 + ["in_step"]
    middle = told[2].resume_token
    again = await until_in_step(stub.WatchProjects(pb.WatchProjectsRequest(resume_token=middle)))
    assert again == told[3:]


async def test_who_resumes_hears_of_a_lims_that_could_not_be_read_yet(site: Site) -> None:
    stub = await site.gateway.lims()
    token = (await until_in_step(stub.WatchProjects(pb.WatchProjectsRequest())))[-1].resume_token
    another = {"endpoint": "http://lims.invalid", "email": "ops@lab.example"}
    stub = await site.restart_gateway({"others": [another]}, forget=False)
    told = await read(stub.WatchProjects(pb.WatchProjectsRequest(every_endpoint=True, resume_token=token)))
    assert (told.endpoint, told.WhichOneof("update")) == ("http://lims.invalid", "in_step")
    assert not told.in_step.HasField("read_time")
    assert told.resume_token == token


async def test_a_row_that_broke_is_not_a_project_that_is_gone(site: Site) -> None:
    stub = await site.gateway.lims()
    await stub.RefreshProjects(pb.RefreshProjectsRequest())
    events = len(await site.gateway.events())
    await site.lims.serve([{**ROWS[0], "owner": None}, *ROWS[1:]])
    assert (await stub.RefreshProjects(pb.RefreshProjectsRequest())).skipped_rows == 1
    assert len(await site.gateway.events()) == events


async def test_the_end_of_the_service_is_a_clean_end(site: Site) -> None:
    stub = await site.gateway.lims()
    await stub.RefreshProjects(pb.RefreshProjectsRequest())
    call = stub.WatchProjects(pb.WatchProjectsRequest())
    await until_in_step(call)
    ending = asyncio.ensure_future(site.gateway.stop())
    assert await refusal(call.read()) == (grpc.StatusCode.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE")
    assert await ending == 0


async def test_wrong_requests_and_foreign_tokens(site: Site) -> None:
    stub = await site.gateway.lims()
    both = pb.WatchProjectsRequest(endpoint=site.lims.address, every_endpoint=True)
    assert await wrong_fields(stub.WatchProjects(both).read()) == {"endpoint"}
    nonsense = pb.WatchProjectsRequest(resume_token="nonsense")
    assert await wrong_fields(stub.WatchProjects(nonsense).read()) == {"resume_token"}
    unknown = pb.WatchProjectsRequest(endpoint="https://other.example")
    assert await refusal(stub.WatchProjects(unknown).read()) == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_ENDPOINT")
    await stub.RefreshProjects(pb.RefreshProjectsRequest())
    token = (await until_in_step(stub.WatchProjects(pb.WatchProjectsRequest())))[-1].resume_token
    stub = await site.restart_gateway()
    foreign = stub.WatchProjects(pb.WatchProjectsRequest(resume_token=token)).read()
    assert await refusal_of_log(foreign) == (grpc.StatusCode.FAILED_PRECONDITION, "FOREIGN_CURSOR")


async def refusal_of_log(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), error_info(caught.value).reason


async def test_a_cache_is_refreshed_before_it_expires_without_being_asked(site: Site) -> None:
    stub = await site.restart_gateway({"cache_ttl_hours": 4 / 3600})
    first = await stub.ListProjects(pb.ListProjectsRequest())
    assert first.source == pb.SOURCE_LIVE
    async with asyncio.timeout(60):
        while await site.lims.fetches() < 2:
            await asyncio.sleep(0.05)
    await site.lims.behave("error_500")
    after = await stub.ListProjects(pb.ListProjectsRequest())
    assert after.source == pb.SOURCE_CACHE
    assert after.freshness_time.ToNanoseconds() > first.freshness_time.ToNanoseconds()
    await site.until_logged("lims_not_refreshed")
    kept = await stub.ListProjects(pb.ListProjectsRequest())
    assert len(kept.projects) == len(ROWS)
