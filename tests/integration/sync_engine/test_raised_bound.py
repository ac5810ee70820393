"""A copy that an operator let be downloaded to be verified stays one that is checked by download (SPEC §4)."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from labferry.sync.v1 import job_pb2, sync_service_pb2
from tests.e2e.terminal import NO, Operator
from tests.integration.sync_engine.running_engine import Engine, Site, running_engine, sha256sum_agrees
from tests.integration.sync_engine.test_audits import AT_ONCE, FAILED, SCRUBBED, occasions
from tests.integration.sync_engine.test_cleanup import ALLOWED, data_files
from tests.integration.sync_engine.test_far_transports import LARGE, equip, rclone, site, sshd
from tests.integration.transfer.far_servers import Sshd, rclone_serving

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


@pytest.fixture
def webdav(site: Site, tmp_path: Path) -> Iterator[None]:
    """The equipment's destination gives no hash at all."""
    site.lab.settings["verify"] = {"max_stream_bytes": LARGE - 1}
    with rclone_serving("webdav", site.nas().parent, tmp_path) as port:
        config = tmp_path / "rclone.conf"
        config.write_text(
            f"[far]\ntype = webdav\nurl = http://127.0.0.1:{port}\nvendor = rclone\npacer_min_sleep = 1ms\n"
        )
        place = {"rclone_remote": "far", "rclone_remote_path": site.nas().name, "rclone_config": str(config)}
        equip(site, {"type": "rclone", **place})
        yield


def damage(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(4)
        file.write(b"ROT!")


async def verify(engine: Engine, run: str, max_stream_bytes: int | None = None) -> sync_service_pb2.VerifyReport:
    request = sync_service_pb2.VerifyRunRequest(run=run, max_stream_bytes=max_stream_bytes)
    (report,) = [u.report async for u in engine.sync.VerifyRun(request) if u.HasField("report")]
    return report


def kept_aside(site: Site, run: str, job_id: str, attempt: int) -> Path:
    return site.nas() / ".labferry-superseded" / f"{job_id}-{attempt}" / site.at_nas(run).relative_to(site.nas())


@pytest.mark.usefixtures("webdav")
@pytest.mark.parametrize("heal", ["bound", "transport"])
async def test_a_job_that_waits_for_a_larger_bound_goes_on_when_the_configuration_has_it(site: Site, heal: str) -> None:
    run = site.make_run({"small": b"x", "large": b"x" * LARGE})
    async with running_engine(site) as engine:
        job_id = (await engine.enqueue(run)).job.job_id
        await engine.until_waiting(job_id, job_pb2.WAIT_CONDITION_OPERATOR)
    if heal == "bound":
        site.lab.settings["verify"] = {"max_stream_bytes": LARGE}
    else:
        (destination,) = site.lab.settings["equipment"][0]["destinations"]
        destination["transport"] = {"type": "mounted", "path": str(site.nas())}
    async with running_engine(site) as engine:
        await engine.until_sealed(job_id)
        assert sha256sum_agrees(site.at_nas(run)) == 2


@pytest.mark.usefixtures("webdav")
async def test_a_large_file_that_differs_is_sent_again_and_proven_without_another_question(site: Site) -> None:
    run = site.make_run({"small": b"x", "large": b"x" * LARGE})
    async with running_engine(site) as engine:
        job_id = (await engine.enqueue(run)).job.job_id
        await engine.until_waiting(job_id, job_pb2.WAIT_CONDITION_OPERATOR)
        damage(site.at_nas(run) / "large")
        report = await verify(engine, run, LARGE)
        assert (report.passed, report.differing) == (False, ["large"])
        job = await engine.until_sealed(job_id)
        assert job.attempt == 2
        assert sha256sum_agrees(site.at_nas(run)) == 2
        assert b"ROT!" in (kept_aside(site, run, job_id, 2) / "large").read_bytes()


@pytest.mark.usefixtures("webdav")
async def test_a_large_file_that_differs_twice_fails_the_job_and_is_kept_aside(site: Site) -> None:
    run = site.make_run({"large": b"x" * LARGE, "larger": b"x" * 2 * LARGE})
    async with running_engine(site) as engine:
        job_id = (await engine.enqueue(run)).job.job_id

        async def asks_for_larger(attempt: int) -> None:
            job = await engine.until(job_id, lambda u: u.job.attempt == attempt and bool(u.job.waiting_on))
            assert job.waiting_on[0].detail.startswith("verify_skipped_oversize: larger can only")

        await engine.until_waiting(job_id, job_pb2.WAIT_CONDITION_OPERATOR)
        damage(site.at_nas(run) / "large")
        assert (await verify(engine, run, LARGE)).differing == ["large"]
        await asks_for_larger(2)
        assert (site.at_nas(run) / "large").read_bytes() == b"x" * LARGE
        damage(site.at_nas(run) / "large")
        assert (await verify(engine, run)).differing == ["large"]
        job = await engine.until_failed(job_id)
        assert (job.failure.kind, job.failure.paths) == (job_pb2.FAILURE_KIND_HASH_MISMATCH, ["large"])
        assert not (site.at_nas(run) / "large").exists()
        kept = [file.read_bytes() for file in kept_aside(site, run, job_id, 2).iterdir()]
        assert [b"ROT!" in content for content in kept] == [True, True]
        await engine.steer("RetryJob", job_id)
        await asks_for_larger(3)
        operator = Operator(site)
        why = await operator("why", run, "-o", "json")
        assert (why.status, why.json[0]["to_do"]) == (
            NO,
            [f"labferry run verify {shlex.quote(run)} --max-stream-bytes {3 * LARGE}"],
        )
        said = await operator(*shlex.split(why.json[0]["to_do"][0])[1:])
        assert said.status == 0, said
        await engine.until_sealed(job_id)
        assert sha256sum_agrees(site.at_nas(run)) == 2
