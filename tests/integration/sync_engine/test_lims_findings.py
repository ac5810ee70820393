"""Runs whose LIMS project is gone or was renamed: from what the gateway knows, and silent where it knows nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from labferry.lims.v1 import lims_service_pb2 as lims_pb
from labferry.secrets.v1 import secrets_service_pb2 as secrets_pb
from labferry.sync.v1 import finding_pb2, problem_service_pb2
from tests.integration.lims_gateway.running_lims import EMAIL, PASSWORD, ROWS, running_lims
from tests.integration.secrets.running_service import running, start
from tests.integration.sync_engine.running_engine import (
    PATIENCE,
    QUEUED,
    Engine,
    Site,
    creation_document,
    running_engine,
)

MISSING, RENAMED = finding_pb2.RULE_LIMS_PROJECT_MISSING, finding_pb2.RULE_LIMS_PROJECT_RENAMED
ASKED = problem_service_pb2.QueryProblemsRequest(rules=[MISSING, RENAMED])


def named(uid: str, short_id: str, name: str) -> dict[str, Any]:
    return creation_document(lims_project={"uid": uid, "short_id": short_id, "name_at_creation": name})


async def said(engine: Engine) -> list[tuple[int, str]]:
    return [(f.rule, f.run_path) async for f in engine.problems.QueryProblems(ASKED)]


async def until(engine: Engine, wanted: Callable[[Sequence[tuple[int, str]]], bool]) -> list[tuple[int, str]]:
    async with asyncio.timeout(PATIENCE):
        while not wanted(found := await said(engine)):
            await asyncio.sleep(0.1)
    return found


async def test_gone_and_renamed_projects_are_findings_and_nothing_waits_for_the_lims(site: Site) -> None:
    lab, row = site.lab, ROWS[0]
    same = site.make_run(leaf="Run_2026-01-01T00-01", creation=named(row["uid"], row["short_id"], row["name"]))
    by_short_id = site.make_run(leaf="Run_2026-01-01T00-02", creation=named("", ROWS[1]["short_id"], ""))
    gone = site.make_run(leaf="Run_2026-01-01T00-03", creation=named("never-was", "PROJ-9999", "Gone"))
    site.make_run(leaf="Run_2026-01-01T00-04", creation=named("", "", "by hand"))
    async with running_lims(lab.folder) as lims:
        lab.write_passphrase()
        lab.settings["secrets"]["passphrase_file"] = str(lab.passphrase_file)
        lab.settings["lims"] = {"endpoint": lims.address, "email": EMAIL}
        async with running_engine(site) as engine:
            # Neither gateway nor LIMS is there, and the answer is: nothing is known.
            assert await said(engine) == []
            async with running(lab, "secrets") as secrets:
                stub = await secrets.secrets()
                await stub.SetSecret(secrets_pb.SetSecretRequest(username="lims", value=PASSWORD))
                gateway = await start(lab, "lims_gateway")
                assert await until(engine, bool) == [(MISSING, gone)]
                renamed = {**row, "name": "Another name"}
                await lims.serve([renamed, *ROWS[2:]])
                await (await gateway.lims()).RefreshProjects(lims_pb.RefreshProjectsRequest())
                found = await until(engine, lambda found: len(found) == 3)
                assert found == [(MISSING, by_short_id), (MISSING, gone), (RENAMED, same)]
                details = [f.rule_detail async for f in engine.problems.QueryProblems(ASKED)]
                assert ROWS[1]["short_id"] in details[0]
                assert repr(row["name"]) in details[2]
                assert "'Another name'" in details[2]
                assert (await engine.enqueue(gone)).outcome == QUEUED, "soft findings block nothing"
                await lims.behave("slow")
                asking = asyncio.ensure_future((await gateway.lims()).RefreshProjects(lims_pb.RefreshProjectsRequest()))
                assert await said(engine) == found
                assert not asking.done()
                asking.cancel()
                await gateway.kill()
                await gateway.resources.aclose()
            # A gateway that stays away is asked no longer what it once knew.
            assert await until(engine, lambda found: not found) == []
