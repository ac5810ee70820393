"""A copy that an operator let be downloaded to be verified stays one that is checked by download (SPEC §4)."""

from __future__ import annotations

from labferry.sync.v1 import job_pb2, sync_service_pb2
from tests.integration.sync_engine.running_engine import Site, running_engine, sha256sum_agrees
from tests.integration.sync_engine.test_audits import AT_ONCE, FAILED, SCRUBBED, occasions
from tests.integration.sync_engine.test_cleanup import ALLOWED, data_files
from tests.integration.sync_engine.test_far_transports import LARGE, equip, rclone, site, sshd
from tests.integration.transfer.far_servers import Sshd

__all__ = ["site", "sshd"]


async def test_audits_scrub_and_cleanup_keep_to_the_bound_that_an_operator_raised(site: Site, sshd: Sshd) -> None:
    bound = {"max_stream_bytes": LARGE - 1, "audit_interval_hours": AT_ONCE}
    site.lab.settings["verify"] = {**bound, "scrub_interval_days": 0.5 / 86400}
    equip(site, rclone(site, sshd, "hashes = none\ndisable_hashcheck = true\n"))
    run = site.make_run({"small": b"x", "large": b"x" * LARGE})
    async with running_engine(site) as engine:
        job_id = (await engine.enqueue(run)).job.job_id
        await engine.until_waiting(job_id, job_pb2.WAIT_CONDITION_OPERATOR)
        request = sync_service_pb2.VerifyRunRequest(run=run, max_stream_bytes=LARGE)
        assert [u.report.passed async for u in engine.sync.VerifyRun(request) if u.HasField("report")] == [True]
        await engine.until(job_id, lambda u: u.job.verify_passes == 2)
        await engine.until_event(f"job-{job_id}", SCRUBBED)
    site.lab.settings.update(verify=bound, nas_cleanup=ALLOWED)
    async with running_engine(site) as engine:
        await engine.until_state(job_id, job_pb2.JOB_STATE_CLEANED)
        assert FAILED not in await engine.event_types(f"job-{job_id}")
        assert await occasions(engine, job_id) == ["request", "audit", "cleanup"]
        assert (data_files(site.local(run)), sha256sum_agrees(site.at_nas(run))) == (set(), 2)
