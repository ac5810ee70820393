"""Projects through the gateway: live, cached, paged, filtered, found."""

from __future__ import annotations

import asyncio
import copy

import grpc
import pytest

from labferry.lims.v1 import lims_service_pb2 as pb
from labferry.secrets.v1 import secrets_service_pb2 as secrets_pb
from tests.integration.lims_gateway.running_lims import EMAIL, ROWS, Site
from tests.integration.secrets.running_service import PASSPHRASE, refusal, start, wrong_fields

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_gateway_fetches_the_password_itself_and_serves_everything_a_row_has(site: Site) -> None:
    before = len(await site.secrets.events())
    stub = await site.restart_gateway()
    answer = await stub.ListProjects(pb.ListProjectsRequest())
    assert (answer.source, answer.stale, answer.skipped_rows, answer.upstream_failure) == (pb.SOURCE_LIVE, False, 0, "")
    assert [p.name for p in answer.projects] == sorted(r["name"] for r in ROWS)
    by_uid = {r["uid"]: r for r in ROWS}
    for project in answer.projects:
        row = by_uid[project.uid]
        assert (project.id, project.short_id, project.owner) == (row["id"], row["short_id"], row["owner"])
        assert pb.ProjectStatus.Name(project.status) == f"PROJECT_STATUS_{row['status'].upper()}"
        assert (project.description if project.HasField("description") else None) == row["description"]
        assert (project.contact_name if project.HasField("contact_name") else None) == row["contact_name"]
        assert dict(project.metadata) == (row["metadata"] or {})
        assert project.created_time.ToNanoseconds() == row["created_at"] * 10**9
        assert project.updated_time.ToNanoseconds() == int(row["updated_at"] * 10**9)
        assert project.fetched_time == answer.freshness_time
    reads = [e for e in (await site.secrets.events())[before:] if e.type == "secrets.secret.read.v1"]
    assert [e.actor for e in reads] == ["service:lims_gateway"]
    again = await stub.ListProjects(pb.ListProjectsRequest())
    assert (again.source, again.stale, again.freshness_time) == (pb.SOURCE_CACHE, False, answer.freshness_time)
    refreshed = await stub.ListProjects(pb.ListProjectsRequest(refresh=True))
    assert refreshed.source == pb.SOURCE_LIVE
    assert refreshed.freshness_time.ToNanoseconds() > answer.freshness_time.ToNanoseconds()
    assert await site.lims.logins() == 1


async def test_a_project_is_found_by_uid_and_by_short_id(site: Site) -> None:
    stub = await site.gateway.lims()
    for row in ROWS[:2]:
        for id_ in (row["uid"], row["short_id"]):
            assert (await stub.GetProject(pb.GetProjectRequest(id=id_))).project.name == row["name"]
    new = {**ROWS[0], "id": 900, "uid": "new-uid", "short_id": "PROJ/9 00", "name": "Newer than the cache"}
    await site.lims.serve([*ROWS, new])
    found = await stub.GetProject(pb.GetProjectRequest(id="new-uid"))
    assert (found.project.name, found.source) == ("Newer than the cache", pb.SOURCE_LIVE)
    missing = stub.GetProject(pb.GetProjectRequest(id="PROJ-9999"))
    assert await refusal(missing) == (grpc.StatusCode.NOT_FOUND, "PROJECT_NOT_FOUND")
    for id_ in ("", "a\nb", "x" * 256):
        assert await wrong_fields(stub.GetProject(pb.GetProjectRequest(id=id_))) == {"id"}


async def test_pages_survive_inserts_and_removals(site: Site) -> None:
    stub = await site.gateway.lims()
    first = await stub.ListProjects(pb.ListProjectsRequest(page_size=4))
    shown = [p.name for p in first.projects]
    rows = [r for r in copy.deepcopy(ROWS) if r["name"] != shown[-1]]
    rows.append({**ROWS[0], "id": 901, "uid": "0", "short_id": "PROJ-0901", "name": "AAA earlier"})
    rows.append({**ROWS[0], "id": 902, "uid": "1", "short_id": "PROJ-0902", "name": "zzz later"})
    await site.lims.serve(rows)
    await stub.ListProjects(pb.ListProjectsRequest(refresh=True))
    token = first.next_page_token
    while token:
        page = await stub.ListProjects(pb.ListProjectsRequest(page_size=4, page_token=token, refresh=True))
        shown += [p.name for p in page.projects]
        token = page.next_page_token
    assert shown == sorted([*(r["name"] for r in ROWS), "zzz later"])
    assert sum(path == "/api/v1/projects" for _, path in await site.lims.requests()) == 2


async def test_filters_and_wrong_requests(site: Site) -> None:
    stub = await site.gateway.lims()

    async def names(request: pb.ListProjectsRequest) -> set[str]:
        return {p.name for p in (await stub.ListProjects(request)).projects}

    wanted = [pb.PROJECT_STATUS_PENDING, pb.PROJECT_STATUS_ARCHIVED]
    expected = {r["name"] for r in ROWS if r["status"] in ("Pending", "Archived")}
    assert await names(pb.ListProjectsRequest(statuses=wanted)) == expected
    assert await names(pb.ListProjectsRequest(query="MÜLLER")) == {"Müller Glia Map", "Müller Glia Map 2"}
    assert await names(pb.ListProjectsRequest(query="proj-0043")) == {"Retina Atlas"}
    assert await names(pb.ListProjectsRequest(query="100%_")) == set()
    for request, field in (
        (pb.ListProjectsRequest(page_size=-1), "page_size"),
        (pb.ListProjectsRequest(page_size=1001), "page_size"),
        (pb.ListProjectsRequest(statuses=[pb.PROJECT_STATUS_UNSPECIFIED]), "statuses[0]"),
        (pb.ListProjectsRequest(statuses=[pb.PROJECT_STATUS_ACTIVE, 77]), "statuses[1]"),  # type: ignore[list-item]
        (pb.ListProjectsRequest(query="a\nb"), "query"),
        (pb.ListProjectsRequest(page_token="nonsense"), "page_token"),
    ):
        assert await wrong_fields(stub.ListProjects(request)) == {field}
    token = (await stub.ListProjects(pb.ListProjectsRequest(page_size=1))).next_page_token
    other = stub.ListProjects(pb.ListProjectsRequest(page_size=1, page_token=token, query="Retina"))
    assert await wrong_fields(other) == {"page_token"}


async def test_endpoints_are_the_same_with_and_without_api_v1_and_slash(site: Site) -> None:
    stub = await site.restart_gateway({"endpoint": f"{site.lims.address}/"})
    assert (await stub.ListProjects(pb.ListProjectsRequest(endpoint=f"{site.lims.address}/api/v1"))).projects
    unknown = stub.ListProjects(pb.ListProjectsRequest(endpoint="https://other.example"))
    assert await refusal(unknown) == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_ENDPOINT")


async def test_twenty_concurrent_calls_make_one_login_and_one_fetch(new_site: Site) -> None:
    site = new_site
    stub = await site.gateway.lims()
    calls = [stub.ListProjects(pb.ListProjectsRequest(refresh=True)) for _ in range(20)]
    answers = await asyncio.gather(*calls)
    assert {len(a.projects) for a in answers} == {len(ROWS)}
    assert await site.lims.requests() == [("POST", "/api/v1/login"), ("GET", "/api/v1/projects")]
    await site.lims.behave("expire_sessions")
    await asyncio.gather(*(stub.CheckHealth(pb.CheckHealthRequest()) for _ in range(20)))
    assert await site.lims.logins() == 2


async def test_one_401_logs_in_again_and_a_second_is_a_configuration_error(site: Site) -> None:
    stub = await site.gateway.lims()
    await stub.ListProjects(pb.ListProjectsRequest(refresh=True))
    await site.lims.behave("expire_sessions")
    answer = await stub.ListProjects(pb.ListProjectsRequest(refresh=True))
    assert (answer.source, await site.lims.logins()) == (pb.SOURCE_LIVE, 2)
    refused = (grpc.StatusCode.FAILED_PRECONDITION, "LIMS_LOGIN_REFUSED")
    await site.lims.behave("refuse_sessions")
    assert await refusal(stub.ListProjects(pb.ListProjectsRequest(refresh=True))) == refused
    assert await site.lims.logins() == 3
    assert "check that the account is active" in (await stub.CheckHealth(pb.CheckHealthRequest())).reason
    await site.lims.behave("refuse_logins")
    before = await site.lims.logins()
    assert await refusal(stub.ListProjects(pb.ListProjectsRequest(refresh=True))) == refused
    assert await site.lims.logins() == before + 1
    reason = (await stub.CheckHealth(pb.CheckHealthRequest())).reason
    assert "check lims.endpoint, lims.email and the stored password" in reason
    await site.lims.behave("ok")
    assert (await stub.ListProjects(pb.ListProjectsRequest(refresh=True))).source == pb.SOURCE_LIVE


async def test_a_password_that_is_not_stored_or_sealed_is_said(new_site: Site) -> None:
    site = new_site
    stub, operator = await site.gateway.lims(), await site.secrets.secrets()
    await operator.DeleteSecret(secrets_pb.DeleteSecretRequest(username="lims", reason="test"))
    try:
        assert await refusal(stub.ListProjects(pb.ListProjectsRequest())) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "LIMS_LOGIN_REFUSED",
        )
        await operator.Seal(secrets_pb.SealRequest())
        unavailable = (grpc.StatusCode.UNAVAILABLE, "PASSWORD_UNAVAILABLE")
        assert await refusal(stub.ListProjects(pb.ListProjectsRequest())) == unavailable
        assert await refusal(stub.RefreshProjects(pb.RefreshProjectsRequest())) == unavailable
        assert await refusal(stub.GetCurrentUser(pb.GetCurrentUserRequest())) == unavailable
        health = await stub.CheckHealth(pb.CheckHealthRequest())
        assert not health.ok
        assert "sealed" in health.reason
    finally:
        await operator.Unseal(secrets_pb.UnsealRequest(passphrase=PASSPHRASE))
        await site.store_secret()
    assert (await stub.ListProjects(pb.ListProjectsRequest())).source == pb.SOURCE_LIVE


async def test_a_secrets_service_that_is_away_and_comes_back(new_site: Site) -> None:
    site = new_site
    stub = await site.gateway.lims()
    await site.secrets.stop()
    unavailable = (grpc.StatusCode.UNAVAILABLE, "PASSWORD_UNAVAILABLE")
    assert await refusal(stub.ListProjects(pb.ListProjectsRequest())) == unavailable
    site.secrets = await start(site.lab, "secrets")
    assert (await stub.ListProjects(pb.ListProjectsRequest())).source == pb.SOURCE_LIVE


async def test_without_a_lims_it_says_so(site: Site) -> None:
    stub = await site.restart_gateway({"endpoint": ""})
    not_configured = (grpc.StatusCode.FAILED_PRECONDITION, "LIMS_NOT_CONFIGURED")
    assert await refusal(stub.ListProjects(pb.ListProjectsRequest())) == not_configured
    assert await refusal(stub.GetProject(pb.GetProjectRequest(id="PROJ-0042"))) == not_configured
    assert await refusal(stub.RefreshProjects(pb.RefreshProjectsRequest())) == not_configured
    assert await refusal(stub.WatchProjects(pb.WatchProjectsRequest()).read()) == not_configured
    health = await stub.CheckHealth(pb.CheckHealthRequest())
    assert (health.ok, "lims.endpoint" in health.reason) == (False, True)


async def test_who_the_gateway_is_in_the_lims_and_what_a_refresh_fetched(site: Site) -> None:
    stub = await site.gateway.lims()
    user = await stub.GetCurrentUser(pb.GetCurrentUserRequest())
    assert (user.id, user.email, user.role, user.created_time.seconds) == (7, EMAIL, "member", 1_690_000_000)
    await site.lims.serve([*ROWS[:3], {"uid": "broken"}])
    refreshed = await stub.RefreshProjects(pb.RefreshProjectsRequest())
    assert (refreshed.count, refreshed.skipped_rows) == (3, 1)
    listed = await stub.ListProjects(pb.ListProjectsRequest())
    assert (len(listed.projects), listed.source, listed.skipped_rows) == (3, pb.SOURCE_CACHE, 1)
    assert listed.freshness_time == refreshed.fetched_at


async def test_whoever_is_known_may_read(site: Site) -> None:
    for who in ("operator", "sync_engine", "lims_gateway"):
        assert (await (await site.gateway.lims(who)).CheckHealth(pb.CheckHealthRequest())).ok
