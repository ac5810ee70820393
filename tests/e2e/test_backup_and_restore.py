"""A running engine is backed up and restored elsewhere with the command line: same jobs, overrides and evidence."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import grpc
import pytest

from labferry.events.v1 import event_log_service_pb2 as log_pb
from labferry.sync.v1 import finding_pb2, job_pb2, run_service_pb2, sync_service_pb2
from tests.integration.secrets.running_service import Lab
from tests.integration.sync_engine.running_engine import Engine, Site, new_site, running_engine

LABFERRY = Path(sys.executable).parent / "labferry"


async def labferry(lab: Lab, *arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(str(LABFERRY), "log", *arguments, "--config", str(lab.write_config())),
        env={k: v for k, v in os.environ.items() if not k.startswith("LABFERRY_")},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert b"Traceback" not in err, err.decode()
    return process.returncode or 0, out.decode(), err.decode()


async def what_it_knows(engine: Engine, runs: Sequence[str]) -> tuple[list[job_pb2.Job], list[object]]:
    """Every job, and every override of the runs."""
    answer = await engine.sync.ListJobs(sync_service_pb2.ListJobsRequest(page_size=100))
    overrides: list[object] = []
    for run in runs:
        listed = await engine.runs.ListOverrides(run_service_pb2.ListOverridesRequest(run=run))
        overrides += listed.overrides
    return list(answer.jobs), overrides


async def test_a_running_engine_is_restored_elsewhere(tmp_path: Path) -> None:
    backup = tmp_path / "engine.tar"
    async with new_site() as site, new_site() as other:
        site.equip()
        other.lab.settings["equipment"] = site.lab.settings["equipment"]
        first = site.make_run()
        second = site.make_run({"tile {{ x }}.tif": b"pixels"}, leaf="Run_2026-04-18T10-00")
        async with running_engine(site) as engine:
            await engine.override(second, finding_pb2.RULE_LEFTOVER_JINJA_MARKER, request_id="first-override")
            await engine.bring(first)
            sealed = await engine.bring(second)
            jobs, overrides = await what_it_knows(engine, (first, second))
            assert (len(jobs), len(overrides)) == (2, 1)
            status, out, err = await labferry(site.lab, "backup", str(backup), "--reason", "weekly")
            assert status == 0, err
            assert str(backup) in out
            assert (await labferry(site.lab, "backup", str(backup)))[0] == 1
            store_id = (await engine.log.GetServerInfo(log_pb.GetServerInfoRequest())).store_id
            await refuse_a_changed_one(other, backup)

        # The old engine is at rest, so the two never work on the same runs.
        status, out, err = await labferry(other.lab, "restore", str(backup), "--service", "sync_engine")
        assert status == 0, err
        assert store_id in out
        async with running_engine(other) as engine:
            assert await what_it_knows(engine, (first, second)) == (jobs, overrides)
            assert (await engine.enqueue(first)).outcome == sync_service_pb2.ENQUEUE_OUTCOME_ALREADY_SYNCED
            # What was asked before the backup gets the answer of then.
            again = await engine.override(second, finding_pb2.RULE_LEFTOVER_JINJA_MARKER, request_id="first-override")
            assert again.id == overrides[0].id  # type: ignore[attr-defined]
            # The evidence lies in blobs: a verification reads the manifest out of one.
            stream = engine.sync.VerifyRun(sync_service_pb2.VerifyRunRequest(run=second))
            reports = [update.report async for update in stream if update.WhichOneof("update") == "report"]
            assert [report.passed for report in reports] == [True]
            status, out, err = await labferry(other.lab, "verify")
            assert (status, out.partition(":")[0]) == (0, "intact"), err
            stale = log_pb.SubscribeEventsRequest(store_id=store_id, after_position=1)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await anext(aiter(engine.log.SubscribeEvents(stale)))
            assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert sealed.job_id in {job.job_id for job in jobs}


async def refuse_a_changed_one(other: Site, backup: Path) -> None:
    changed = backup.with_name("changed.tar")
    content = backup.read_bytes()
    changed.write_bytes(content.replace(b'"actor":"operator-1"', b'"actor":"operator-2"', 1))
    status, _, err = await labferry(
        other.lab, "restore", str(changed), "--service", "sync_engine", "--sha256", "0" * 64
    )
    assert status == 1
    assert "nothing was restored" in err and "event 2: " in err
    unsummed = await labferry(other.lab, "restore", str(changed), "--service", "sync_engine")
    assert unsummed[0] == 1 and "--sha256" in unsummed[2]
