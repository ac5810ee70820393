"""Proven copies are read again by themselves: passes, the scrub, and the repair of what rotted (SPEC §4)."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from pathlib import Path

import pytest

from labferry.events.v1 import job_events_pb2
from labferry.sync.v1 import equipment_service_pb2, finding_pb2, job_pb2, problem_service_pb2, sync_service_pb2
from tests.integration.sync_engine.running_engine import (
    EQUIPMENT,
    PATIENCE,
    Engine,
    Site,
    running_engine,
    sha256sum_agrees,
)

AT_ONCE = 0.2 / 3600
"""Hours: two tenths of a second."""
VERIFIED, FAILED = "sync.job.verified.v1", "sync.job.verification_failed.v1"
REPAIRED, SCRUBBED = "sync.job.copy_repaired.v1", "sync.job.files_scrubbed.v1"
SEALED = "sync.job.sealed.v1"


def rot(path: Path) -> None:
    """Another content, with the same size and times."""
    before = path.stat()
    path.write_bytes(bytes(byte ^ 1 for byte in path.read_bytes()))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


async def rotted(engine: Engine, run: str) -> list[finding_pb2.Finding]:
    request = problem_service_pb2.QueryProblemsRequest(run=run)
    return [f async for f in engine.problems.QueryProblems(request) if f.rule == finding_pb2.RULE_COPY_ROTTED]


async def occasions(engine: Engine, job_id: str) -> list[str]:
    found = []
    for event in await engine.events():
        if event.stream == f"job-{job_id}" and event.type == VERIFIED:
            payload = job_events_pb2.JobVerified()
            event.payload.Unpack(payload)
            found.append(payload.occasion)
    return found


async def test_passes_are_repeated_until_enough_matched_and_no_further(site: Site) -> None:
    site.lab.settings.update(verify={"audit_interval_hours": AT_ONCE}, nas_cleanup={"min_verify_passes": 3})
    async with running_engine(site) as engine:
        job = await engine.bring(site.make_run())
        await engine.until(job.job_id, lambda u: u.job.verify_passes == 3)
        other = await engine.bring(site.make_run(leaf="Run_2026-04-17T15-00"))
        await engine.until(other.job_id, lambda u: u.job.verify_passes == 3)
        assert await occasions(engine, job.job_id) == ["transfer", "audit", "audit"]


async def test_what_rotted_is_a_finding_and_is_repaired_from_an_unchanged_source(site: Site) -> None:
    site.lab.settings.update(verify={"audit_interval_hours": 1000})
    async with running_engine(site) as engine:
        run = site.make_run({"a.tif": b"pixels", "sub/b.csv": b"1,2\n", "c.bin": b"c"})
        job = await engine.bring(run)
    rot(site.at_nas(run) / "a.tif")
    (site.at_nas(run) / "sub/b.csv").unlink()
    site.lab.settings["verify"]["audit_interval_hours"] = AT_ONCE
    async with running_engine(site) as engine:
        await engine.until_event(f"job-{job.job_id}", REPAIRED)
        await engine.until(job.job_id, lambda u: u.job.verify_passes == 2)
        types = [t for t in await engine.event_types(f"job-{job.job_id}") if t in (VERIFIED, FAILED, REPAIRED)]
        assert types == [VERIFIED, FAILED, REPAIRED, VERIFIED, VERIFIED]
        assert sha256sum_agrees(site.at_nas(run)) == 3
        assert await rotted(engine, run) == []
        kept = [p for p in (site.nas() / ".labferry-superseded").rglob("*") if p.is_file()]
        assert [p.name for p in kept] == ["a.tif"]
        assert kept[0].read_bytes() != b"pixels"


async def verify(engine: Engine, run: str) -> bool:
    request = sync_service_pb2.VerifyRunRequest(run=run, reason="a look")
    (passed,) = [u.report.passed async for u in engine.sync.VerifyRun(request) if u.HasField("report")]
    return passed


async def told_of(engine: Engine, run: str) -> tuple[str, str]:
    """What the job and the finding about the run say of the next reading."""
    (job,) = (await engine.run(run)).jobs
    return job.next_reading, (await rotted(engine, run))[0].rule_detail


async def test_what_a_pass_on_request_found_wrong_is_repaired_at_once(site: Site) -> None:
    async with running_engine(site) as engine:
        run = site.make_run({"a.tif": b"pixels", "b.csv": b"1,2\n"})
        job = await engine.bring(run)
        await pause(engine, "PauseEquipment")
        rot(site.at_nas(run) / "a.tif")
        (site.at_nas(run) / "b.csv").unlink()
        assert not await verify(engine, run)
        assert REPAIRED not in await engine.event_types(f"job-{job.job_id}"), "a paused equipment is left alone"
        said, finding = await told_of(engine, run)
        assert said.startswith("it is read again when CONFOCAL_01 is resumed, and what the run here still holds")
        assert said in finding
        await pause(engine, "ResumeEquipment")
        await engine.until_event(f"job-{job.job_id}", REPAIRED)
        await engine.until(job.job_id, lambda u: u.job.verify_passes == 1)
        types = [t for t in await engine.event_types(f"job-{job.job_id}") if t in (VERIFIED, FAILED, REPAIRED)]
        assert types == [VERIFIED, FAILED, FAILED, REPAIRED, VERIFIED]
        assert sha256sum_agrees(site.at_nas(run)) == 2
        assert (await rotted(engine, run), (await engine.run(run)).jobs[0].next_reading) == ([], "")


async def test_a_wrong_copy_is_mended_before_it_is_sealed_anew(site: Site) -> None:
    """Nothing is to be done for the seal before that, and what does nothing must not take the repair's turn."""
    site.lab.settings["equipment"].clear()
    site.equip(transport={"bandwidth": {"upload_mbps": 16}})
    async with running_engine(site) as engine:
        run = site.make_run({"a.tif": b"pixels", "big.bin": os.urandom(2 << 20)})
        job = await engine.bring(run)
        await pause(engine, "PauseEquipment")
        (site.at_nas(run) / "big.bin").unlink()
        assert not await verify(engine, run)
        await engine.override(run, finding_pb2.RULE_LEFTOVER_JINJA_MARKER)
        await pause(engine, "ResumeEquipment")
        await engine.until_event(f"job-{job.job_id}", REPAIRED)
        await engine.until(job.job_id, lambda u: u.job.verify_passes == 1)
        async with asyncio.timeout(PATIENCE):
            while (await engine.event_types(f"job-{job.job_id}")).count(SEALED) < 2:
                await asyncio.sleep(0.05)
        types = [t for t in await engine.event_types(f"job-{job.job_id}") if t in (FAILED, REPAIRED, SEALED)]
        assert types == [SEALED, FAILED, FAILED, REPAIRED, SEALED]
        assert sha256sum_agrees(site.at_nas(run)) == 2


async def test_a_copy_that_could_not_be_mended_says_when_it_is_read_again(site: Site) -> None:
    async with running_engine(site) as engine:
        run = site.make_run()
        job = await engine.bring(run)
        (site.at_nas(run) / "a.tif").unlink()
        (site.local(run) / "a.tif").write_bytes(b"PIXELS")
        assert not await verify(engine, run)
        async with asyncio.timeout(PATIENCE):
            while not (shown := (await engine.run(run)).jobs[0]).HasField("next_reading_time"):
                await asyncio.sleep(0.05)
        assert shown.repair_problem == "1 of these files can't be put back: the run here doesn't hold what was proven"
        last = (await engine.events())[-1].recorded_time.ToDatetime()
        assert abs(shown.next_reading_time.ToDatetime() - last - timedelta(hours=24)) < timedelta(minutes=1)
        said, finding = await told_of(engine, run)
        assert said.startswith(f"it is read again after {shown.next_reading_time.ToDatetime():%Y-%m-%dT%H:%M:%SZ}")
        assert said in finding
        (site.local(run) / "a.tif").write_bytes(b"pixels")
        assert not await verify(engine, run)
        await engine.until(job.job_id, lambda u: u.job.verify_passes == 1)
        assert sha256sum_agrees(site.at_nas(run)) == 2


async def pause(engine: Engine, method: str) -> None:
    request = getattr(equipment_service_pb2, f"{method}Request")
    await getattr(engine.equipment, method)(request(equipment_id=EQUIPMENT, reason="because"))


async def test_what_rotted_stays_a_finding_when_the_source_is_another(site: Site) -> None:
    site.lab.settings.update(verify={"audit_interval_hours": 1000})
    async with running_engine(site) as engine:
        run = site.make_run()
        job = await engine.bring(run)
    rot(site.at_nas(run) / "a.tif")
    (site.local(run) / "a.tif").write_bytes(b"PIXELS")
    site.lab.settings["verify"]["audit_interval_hours"] = AT_ONCE
    async with running_engine(site) as engine:
        await engine.until_event(f"job-{job.job_id}", FAILED)
        found = await rotted(engine, run)
        assert {f.offending_path for f in found} == {run, f"{run}/a.tif"}
        assert {f.tier for f in found} == {finding_pb2.TIER_SOFT}
        shown = await engine.job(job.job_id)
        assert (shown.state, shown.verify_passes) == (job_pb2.JOB_STATE_VERIFIED, 0)
        assert REPAIRED not in await engine.event_types(f"job-{job.job_id}")
        assert (site.at_nas(run) / "a.tif").exists(), "nothing is set aside that can't be replaced"


async def test_a_scrub_reads_every_file_within_its_interval(site: Site) -> None:
    site.lab.settings.update(
        verify={"audit_interval_hours": 1000, "scrub_interval_days": 1.0 / 86400},
        nas_cleanup={"min_verify_passes": 1},
    )
    async with running_engine(site) as engine:
        run = site.make_run({f"{number}.bin": b"%d" % number for number in range(5)})
        job = await engine.bring(run)
        await engine.until_event(f"job-{job.job_id}", SCRUBBED)
        rot(site.at_nas(run) / "3.bin")
        await engine.until_event(f"job-{job.job_id}", FAILED)
        await engine.until_event(f"job-{job.job_id}", REPAIRED)


@pytest.mark.slow
async def test_what_was_read_is_dated_by_the_beginning_of_its_reading(site: Site) -> None:
    """A file that rots between its own turn and the end of a long pass was not found whole at that end."""
    site.lab.settings["equipment"].clear()
    site.lab.settings.update(verify={"audit_interval_hours": 1000})
    site.equip(transport={"bandwidth": {"upload_mbps": 800}})
    async with running_engine(site) as engine:
        run = site.make_run({f"{n}.bin": os.urandom(1 << 20) for n in range(3)})
        job = await engine.bring(run)
        proven = (await engine.events())[-1].recorded_time.ToDatetime()
    site.lab.settings["equipment"][0]["transport"]["bandwidth"]["upload_mbps"] = 8
    site.lab.settings["verify"]["audit_interval_hours"] = AT_ONCE
    async with running_engine(site) as engine:
        await engine.until(job.job_id, lambda u: u.job.verify_passes == 2)
        passed = [e.recorded_time.ToDatetime() for e in await engine.events() if e.type == VERIFIED][-1]
        request = sync_service_pb2.ListEvidenceRequest(run=run)
        dates = {e.time.ToDatetime() async for e in engine.sync.ListEvidence(request)}
        # A mebibyte a second: the pass took more than one.
        assert all(proven < date < passed - timedelta(seconds=1) for date in dates)


async def test_a_scrub_makes_way_for_a_transfer_and_keeps_to_the_bandwidth(site: Site) -> None:
    site.lab.settings["equipment"].clear()
    site.equip(transport={"bandwidth": {"upload_mbps": 800}})
    site.lab.settings.update(verify={"audit_interval_hours": 1000})
    async with running_engine(site) as engine:
        big = await engine.bring(site.make_run({"big.bin": os.urandom(30 << 20)}))
    transport = site.lab.settings["equipment"][0]["transport"]
    transport["bandwidth"]["upload_mbps"] = 8
    site.lab.settings["verify"]["audit_interval_hours"] = AT_ONCE
    async with running_engine(site) as engine:
        small = await engine.bring(site.make_run({"a.tif": b"x"}, leaf="Run_2026-04-17T16-00"))
        assert small.sealed
        assert (await engine.job(big.job_id)).verify_passes == 1, "at 1 MiB/s the audit takes 30 s"
