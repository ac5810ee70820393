"""VerifyRun where it can't check: a pass that broke off counts as one that failed; what isn't there is no pass."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import grpc
import pytest
from msgspec.structs import replace

from labferry.sync.v1 import sync_service_pb2
from services.sync_engine.errors import DestinationUnusableError
from services.sync_engine.jobs.job import Job, JobState
from services.sync_engine.jobs.sealed_records import SealedRecords, keep_sealed_records
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import FailureKind, TransferError
from services.sync_engine.validation.finding import Rule
from services.sync_engine.validation.job_findings import findings_of_job
from tests.e2e.terminal import Operator
from tests.faults.sync_engine.engine_parts import RUN, engine_parts
from tests.integration.sync_engine.running_engine import Engine, new_site, running_engine


async def test_a_pass_that_broke_off_takes_the_earlier_ones_back_and_is_a_finding(tmp_path: Path) -> None:
    async with engine_parts(tmp_path) as parts:
        (parts.here / "a").write_bytes(b"pixels")
        await parts.bring()
        await parts.pass_over()
        (job,) = await parts.bench.jobs_of_run(RUN)
        assert (job.state, job.verify_passes) == (JobState.VERIFIED, 2)
        transport: Any = parts.bench.destinations["CONFOCAL_01"][0].transport
        verify = transport.verify

        def breaks_off(*arguments: Any, **fields: Any) -> None:
            raise TransferError(FailureKind.NETWORK, "the connection was reset while reading a")

        transport.verify = breaks_off
        with pytest.raises(DestinationUnusableError, match="reset while reading"):
            await parts.pass_over()
        transport.verify = verify
        (job,) = await parts.bench.jobs_of_run(RUN)
        assert (job.state, job.verify_passes, job.sealed) == (JobState.VERIFIED, 0, True)
        (finding,) = findings_of_job(job)
        assert finding.rule is Rule.COPY_ROTTED
        assert "reset while reading a" in finding.rule_detail
        await parts.pass_over()
        (job,) = await parts.bench.jobs_of_run(RUN)
        assert (job.verify_passes, findings_of_job(job)) == (1, [])


async def test_a_destination_that_is_away_is_no_pass(engine: Engine) -> None:
    run = engine.site.make_run()
    job = await engine.bring(run)
    nas = engine.site.nas()
    nas.rename(nas.with_name("away"))
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        async for _ in engine.sync.VerifyRun(sync_service_pb2.VerifyRunRequest(run=run)):
            pass
    assert "default" in str(refusal.value.details())
    nas.with_name("away").rename(nas)
    after = await engine.job(job.job_id)
    assert (after.verify_passes, after.revision) == (job.verify_passes, job.revision)


async def test_destinations_that_are_there_are_read_though_another_is_away() -> None:
    async with new_site() as site:
        places = {name: site.nas(destination=name) for name in ("away", "there", "rotten")}
        for folder in places.values():
            folder.mkdir(parents=True)
        site.equip(
            destinations=[{"name": n, "transport": {"type": "mounted", "path": str(f)}} for n, f in places.items()]
        )
        run = site.make_run({"a.tif": b"pixels"})
        async with running_engine(site) as engine:
            for job in (await engine.enqueue(run)).jobs:
                await engine.until_sealed(job.job_id)
            (site.at_nas(run, "rotten") / "a.tif").write_bytes(b"rotten")
            places["away"].rename(site.lab.folder / "moved")
            passed, words = await reports_and_refusal(engine, run)
            assert passed == {"there": True, "rotten": False}
            assert words.startswith("away: ")
            places["there"].rename(site.lab.folder / "moved too")
            passed, words = await reports_and_refusal(engine, run)
            assert set(passed) == {"rotten"}
            assert "; there: " in words
            shown = await Operator(site)("run", "verify", run, "-o", "json")
            assert [report["destination"] for report in shown.json] == ["rotten"]
            assert "away: " in shown.err


async def reports_and_refusal(engine: Engine, run: str) -> tuple[dict[str, bool], str]:
    passed = {}
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        async for update in engine.sync.VerifyRun(sync_service_pb2.VerifyRunRequest(run=run)):
            if update.HasField("report"):
                passed[update.report.destination] = update.report.passed
    return passed, str(refusal.value.details())


async def test_what_was_sealed_while_a_pass_read_is_what_counts(tmp_path: Path) -> None:
    async with engine_parts(tmp_path) as parts:
        (parts.here / "a").write_bytes(b"pixels")
        await parts.bring()
        (job,) = await parts.bench.jobs_of_run(RUN)
        (place,) = parts.bench.destinations["CONFOCAL_01"]
        manifest = parts.there / ".exlab-wizard" / "checksums.sha256"
        sealed = manifest.read_bytes()
        other = await parts.bench.blobs.put(b"as it was when the pass began")

        async def records_of(job: Job, bench: Workbench) -> SealedRecords:
            return await keep_sealed_records(bench, job, place, asyncio.to_thread, TransferControl(), leased=True)

        before = replace(job, receipt_blob=other, manifest_blob=other)
        assert await records_of(before, parts.bench) == SealedRecords(True)
        assert manifest.read_bytes() == sealed

        async def amended(run: str) -> list[Job]:
            return [job, replace(job, job_id="later", state=JobState.QUEUED)]

        manifest.write_bytes(b"")
        assert await records_of(job, dataclasses.replace(parts.bench, jobs_of_run=amended)) == SealedRecords(True)
        assert manifest.read_bytes() == b"", "the amendment's seal brings its own"
        assert (await records_of(job, parts.bench)).note
        assert manifest.read_bytes() == sealed
