"""An engine that is killed in the middle of a deletion: the next one records what is left and deletes nothing by it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from pathlib import Path

import grpc
import pytest

from labferry.events.v1 import run_events_pb2
from labferry.sync.v1 import job_pb2
from tests.integration.sync_engine.running_engine import PATIENCE, Site, running_engine, start_engine
from tests.integration.sync_engine.test_cleanup import clean, data_files, files_not_deleted, lacking, verify

FILES = 4000
ENDED = "sync.run.cleanup_ended.v1"


@pytest.mark.slow
async def test_a_kill_between_two_files(site: Site) -> None:
    site.lab.settings["nas_cleanup"] = {"enabled": True, "min_verify_passes": 1, "min_age_hours": 1000}
    run = site.make_run({f"{number:05}.bin": b"%d" % number for number in range(FILES)})
    async with running_engine(site) as engine:
        job = await engine.bring(run)
    site.lab.settings["nas_cleanup"]["min_age_hours"] = 0
    engine = await start_engine(site)
    last = site.local(run) / f"{FILES - 1:05}.bin"
    first = site.local(run) / "00000.bin"
    async with asyncio.timeout(PATIENCE):
        while first.exists():
            await asyncio.sleep(0.001)
    await engine.kill()
    assert last.exists(), "the kill came too late to prove anything"
    left = files_not_deleted(site.local(run))
    (site.local(run) / "late.bin").write_bytes(b"late")
    async with running_engine(site) as engine:
        (ended,) = [e for e in await engine.events() if e.type == ENDED]
        told = run_events_pb2.RunCleanupEnded()
        assert ended.payload.Unpack(told)
        assert (told.interrupted, told.cleaned) == (True, False)
        assert (told.file_count, told.gone_count) == (0, FILES - len(left))
        assert told.remaining_count == len(left) + 1
        with contextlib.suppress(grpc.aio.AioRpcError):
            assert lacking(await clean(engine, run)) >= {"local_files_unchanged"}
        assert data_files(site.local(run)) == left | {"late.bin"}
        (site.local(run) / "late.bin").unlink()
        assert (await clean(engine, run)).cleaned
        assert data_files(site.local(run)) == set()
        assert (await engine.job(job.job_id)).state == job_pb2.JOB_STATE_CLEANED
        assert len(data_files(site.at_nas(run))) == FILES
        assert await verify(engine, run), "the copy can still be verified"


async def test_a_clean_that_comes_before_an_ended_deletion_was_recorded_records_its_end_and_no_more(
    site: Site, tmp_path: Path
) -> None:
    site.lab.settings["nas_cleanup"] = {"enabled": True, "min_verify_passes": 1, "min_age_hours": 0}
    run = site.make_run()
    death = {"type": ENDED, "side": "before", "count": 1, "run": run, "streams": [f"run-{run}"]}
    (site.lab.folder / "death.json").write_text(json.dumps(death), encoding="utf-8")
    engine = await start_engine(site, module="tests.faults.sync_engine.dying_engine")
    job_id = (await engine.enqueue(run)).job.job_id
    assert await engine.service.ended() == -signal.SIGKILL
    assert data_files(site.local(run)) == set()
    # The next engine finds no run to look at, so the deletion is still open when it is asked.
    site.local(run).rename(tmp_path / "away")
    async with running_engine(site) as engine:
        (tmp_path / "away").rename(site.local(run))
        # The reaper may come first: then the answer is of a run that is cleaned already.
        assert (await engine.job(job_id)).state in (job_pb2.JOB_STATE_CLEANUP_ELIGIBLE, job_pb2.JOB_STATE_CLEANED)
        assert (await clean(engine, run)).cleaned
        (ended,) = [e for e in await engine.events() if e.type == ENDED]
        told = run_events_pb2.RunCleanupEnded()
        assert ended.payload.Unpack(told)
        assert (told.cleaned, told.file_count, told.gone_count, told.gone_byte_count) == (True, 0, 2, 10)
        assert (await engine.job(job_id)).state == job_pb2.JOB_STATE_CLEANED
        assert (await clean(engine, run)).cleaned
        # Neither a read model nor the log suffered from it.
        await engine.bring(site.make_run(leaf="Run_2026-04-17T16-00"))
        assert (await engine.event_types(f"run-{run}")).count("sync.run.cleanup_begun.v1") == 1
    async with running_engine(site) as engine:
        assert (await engine.job(job_id)).state == job_pb2.JOB_STATE_CLEANED
