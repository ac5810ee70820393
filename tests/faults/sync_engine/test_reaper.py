"""The reaper: what is wrong with one run holds up no other."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
from datetime import timedelta
from pathlib import Path

import msgspec
from structlog.testing import capture_logs

from libs.event_log.blob_store import BlobMissingError
from libs.service_kit.equipment_settings import EquipmentSettings
from services.sync_engine.cleanup.clean_run import Cleaned
from services.sync_engine.cleanup.interlocks import CleanupRules
from services.sync_engine.cleanup.reaper import Reaper
from services.sync_engine.cleanup.ticket import Limits
from services.sync_engine.engine_log import Cause
from services.sync_engine.jobs.job import JobState
from services.sync_engine.runs.location import RunLocator
from tests.faults.sync_engine.engine_parts import RUN, Parts, engine_parts

RULES = CleanupRules(True, 1, timedelta(0), True, Limits(1000, 1 << 30))
DAMAGED = RUN.replace("Run_2026", "Run_2025")


async def _proven(parts: Parts) -> None:
    (parts.here / "a.tif").write_bytes(b"pixels")
    await parts.bring()


async def test_a_run_with_a_defect_is_told_and_the_next_one_is_cleaned(tmp_path: Path) -> None:
    async with engine_parts(tmp_path, RULES) as parts:
        await _proven(parts)
        shutil.copytree(parts.here, parts.folder / "lab" / DAMAGED)
        (job,) = await parts.bench.jobs_of_run(RUN)
        cleaned, clean = asyncio.Event(), parts.cleaner.clean

        async def clean_or_fail(run: str, cause: Cause) -> Cleaned:
            if run == DAMAGED:
                raise BlobMissingError("0" * 64)
            answer = await clean(run, cause)
            cleaned.set()
            return answer

        parts.cleaner.clean = clean_or_fail  # type: ignore[method-assign]
        reaper = Reaper(parts.cleaner, parts.bench, RULES, parts.bench.logger)
        with capture_logs() as lines:
            reaper.start([msgspec.structs.replace(job, job_id="damaged", run=DAMAGED), job])
            async with asyncio.timeout(30):
                await cleaned.wait()
            await reaper.close()
        (told,) = [line for line in lines if line["event"] == "cleanup_defect"]
        assert (told["run"], len(told["error_id"])) == (DAMAGED, 32)


async def test_a_run_that_hangs_holds_up_no_other_equipment(tmp_path: Path) -> None:
    async with engine_parts(tmp_path, RULES) as parts:
        await _proven(parts)
        (job,) = await parts.bench.jobs_of_run(RUN)
        elsewhere = RUN.replace("CONFOCAL_01", "SCOPE_02")
        shutil.copytree(parts.here, parts.folder / "lab" / elsewhere)
        equipment = [EquipmentSettings.model_validate(_equipment(parts, i)) for i in ("CONFOCAL_01", "SCOPE_02")]
        destinations = dict.fromkeys(("CONFOCAL_01", "SCOPE_02"), parts.bench.destinations["CONFOCAL_01"])
        bench = dataclasses.replace(parts.bench, locator=RunLocator(equipment), destinations=destinations)
        hangs, cleaned = asyncio.Event(), asyncio.Event()

        async def clean_or_hang(run: str, cause: Cause) -> Cleaned:
            if run == elsewhere:
                cleaned.set()
            else:
                hangs.set()
                await asyncio.Event().wait()
            return Cleaned(True)

        parts.cleaner.clean = clean_or_hang  # type: ignore[method-assign]
        reaper = Reaper(parts.cleaner, bench, RULES, bench.logger)
        reaper.start([job])
        async with asyncio.timeout(30):
            await hangs.wait()
            reaper.notice(msgspec.structs.replace(job, job_id="other", run=elsewhere, equipment_id="SCOPE_02"))
            await cleaned.wait()
            await reaper.close()


async def test_a_clock_that_is_put_right_is_noticed(tmp_path: Path) -> None:
    """The engine starts while the clock is ten days behind."""
    rules = dataclasses.replace(RULES, min_age=timedelta(hours=1))
    async with engine_parts(tmp_path, rules) as parts:
        await _proven(parts)
        (job,) = await parts.bench.jobs_of_run(RUN)
        cleaned, clean = asyncio.Event(), parts.cleaner.clean

        async def clean_and_tell(run: str, cause: Cause) -> Cleaned:
            answer = await clean(run, cause)
            cleaned.set()
            return answer

        parts.cleaner.clean = clean_and_tell  # type: ignore[method-assign]
        reaper = Reaper(parts.cleaner, parts.bench, rules, parts.bench.logger, look_seconds=0.01)
        parts.clock.now -= timedelta(days=10)
        reaper.start([job])
        # Its task takes its first look, and waits.
        await asyncio.sleep(0)
        parts.clock.now += timedelta(days=10, hours=1)
        async with asyncio.timeout(30):
            await cleaned.wait()
        await reaper.close()
        assert not (parts.here / "a.tif").exists()


def _equipment(parts: Parts, equipment_id: str) -> dict[str, object]:
    transport = {"type": "mounted", "path": str(parts.folder / "nas")}
    return {"id": equipment_id, "local_root": str(parts.folder / "lab"), "transport": transport}


async def test_a_run_of_which_nobody_knows_what_was_verified_is_held(tmp_path: Path) -> None:
    async with engine_parts(tmp_path, RULES) as parts:
        await _proven(parts)
        (job,) = await parts.bench.jobs_of_run(RUN)
        for blob in (parts.folder / "blobs").rglob(job.files_blob or ""):
            blob.unlink()
        answer = await parts.clean()
        lacking = next(i for i in answer.interlocks if not i.satisfied)
        assert (lacking.name, (parts.here / "a.tif").exists()) == ("local_files_unchanged", True)
        assert lacking.detail.startswith("nobody knows any more what was verified")
        (job,) = await parts.bench.jobs_of_run(RUN)
        assert (job.state, job.verify_passes) == (JobState.VERIFIED, 1)
