"""VerifyRun where it can't check: a pass that broke off counts as one that failed; what isn't there is no pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from labferry.sync.v1 import sync_service_pb2
from services.sync_engine.errors import DestinationUnusableError
from services.sync_engine.jobs.job import JobState
from services.sync_engine.transfer.transport import FailureKind, TransferError
from services.sync_engine.validation.finding import Rule
from services.sync_engine.validation.job_findings import findings_of_job
from tests.faults.sync_engine.engine_parts import RUN, engine_parts
from tests.integration.sync_engine.running_engine import Engine


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
