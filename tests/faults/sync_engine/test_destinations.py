"""Destinations that are read-only, full, gone, corrupted, or hold something else: each told apart, nothing lost."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labferry.sync.v1 import finding_pb2, job_pb2, problem_service_pb2, sync_service_pb2
from tests.integration.sync_engine.running_engine import Engine, Site, running_engine, same_tree, start_engine
from tests.integration.transfer.http_gate import gate_before
from tests.integration.transfer.unfinished_uploads import BUCKET, serving_bucket


@contextmanager
def mounted_tmpfs(path: Path, *options: str) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


async def test_a_read_only_destination_fails_at_once_and_retry_brings_the_run(engine: Engine) -> None:
    site = engine.site
    run = site.make_run()
    with mounted_tmpfs(site.nas(), "ro"):
        job_id = (await engine.enqueue(run)).job.job_id
        job = await engine.until_failed(job_id)
        assert job.failure.kind == job_pb2.FAILURE_KIND_CONFIGURATION
        assert "Read-only file system" in job.failure.message
        await site.until_sync_status(run, "failed")
    armed = await engine.sync.RetryJob(sync_service_pb2.RetryJobRequest(job_id=job_id, reason="mounted rw"))
    assert armed.state == job_pb2.JOB_STATE_QUEUED
    await engine.until_sealed(job_id)
    same_tree(site.local(run), site.at_nas(run))


async def test_queueing_a_failed_run_arms_its_job_again(engine: Engine) -> None:
    site = engine.site
    run = site.make_run()
    with mounted_tmpfs(site.nas(), "ro"):
        job_id = (await engine.enqueue(run)).job.job_id
        await engine.until_failed(job_id)
    again = await engine.enqueue(run)
    assert again.outcome == sync_service_pb2.ENQUEUE_OUTCOME_REARMED
    assert again.job.job_id == job_id
    await engine.until_sealed(job_id)


async def test_a_full_destination_is_waited_for_and_burns_no_attempt(engine: Engine) -> None:
    site = engine.site
    run = site.make_run({"big.h5": os.urandom(3_000_000), "small.txt": b"1"})
    with mounted_tmpfs(site.nas(), "size=1m"):
        job_id = (await engine.enqueue(run)).job.job_id
        job = await engine.until_waiting(job_id, job_pb2.WAIT_CONDITION_DESTINATION_FULL)
        assert job.state == job_pb2.JOB_STATE_QUEUED
        assert job.waiting_on[0].HasField("next_try_time")
        assert job.waiting_on[0].who_can_clear == "it"
        assert not (site.at_nas(run) / "big.h5").exists()


async def test_a_server_of_s3_that_is_full_is_waited_for(site: Site, tmp_path: Path) -> None:
    words = b"<Error><Code>XMinioStorageFull</Code><Message>Make room.</Message></Error>"
    with serving_bucket(tmp_path) as bucket, gate_before(bucket.port, "^PUT", 507, words) as gate:
        bucket.config.write_text(bucket.configured(gate.port))
        remote = {"rclone_remote": "far", "rclone_remote_path": BUCKET, "rclone_config": str(bucket.config)}
        site.lab.settings["equipment"].clear()
        site.equip(destinations=[{"name": "far", "transport": {"type": "rclone", **remote}}])
        run = site.make_run()
        async with running_engine(site) as engine:
            job_id = (await engine.enqueue(run)).job.job_id
            job = await engine.until_waiting(job_id, job_pb2.WAIT_CONDITION_DESTINATION_FULL)
            assert job.waiting_on[0].who_can_clear == "it"


async def test_a_destination_that_is_gone_is_waited_for_and_the_job_goes_on_when_it_is_back(engine: Engine) -> None:
    site = engine.site
    run = site.make_run()
    aside = site.nas().with_name("away")
    site.nas().rename(aside)
    job_id = (await engine.enqueue(run)).job.job_id
    job = await engine.until_waiting(job_id, job_pb2.WAIT_CONDITION_DESTINATION_UNREACHABLE)
    assert job.attempt == 0
    assert not site.nas().exists()
    aside.rename(site.nas())
    job = await engine.until_sealed(job_id)
    assert job.attempt == 1
    same_tree(site.local(run), site.at_nas(run))


async def test_a_destination_that_vanishes_during_the_copy(site: Site) -> None:
    site.lab.settings["equipment"].clear()
    site.equip(transport={"bandwidth": {"upload_mbps": 80}})
    run = site.make_run({f"{n:02}.h5": os.urandom(1_000_000) for n in range(20)})
    async with running_engine(site) as engine:
        job_id = (await engine.enqueue(run)).job.job_id
        await engine.until(job_id, lambda u: u.progress.bytes_done > 0)
        aside = site.nas().with_name("away")
        site.nas().rename(aside)
        await engine.until_waiting(job_id, job_pb2.WAIT_CONDITION_DESTINATION_UNREACHABLE)
        aside.rename(site.nas())
        await engine.until_sealed(job_id)
        same_tree(site.local(run), site.at_nas(run))


async def test_a_different_file_at_the_destination_is_never_overwritten(engine: Engine) -> None:
    site = engine.site
    run = site.make_run()
    theirs = site.at_nas(run) / "a.tif"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"THEIRS")
    job_id = (await engine.enqueue(run)).job.job_id
    job = await engine.until_failed(job_id)
    assert job.failure.kind == job_pb2.FAILURE_KIND_DESTINATION_FILE_DIFFERS
    assert list(job.failure.paths) == ["a.tif"]
    assert theirs.read_bytes() == b"THEIRS"
    assert (site.local(run) / "a.tif").read_bytes() == b"pixels"
    query = problem_service_pb2.QueryProblemsRequest(run=run)
    finding, failed = [f async for f in engine.problems.QueryProblems(query)]
    assert failed.rule == finding_pb2.RULE_NAS_SYNC_FAILED
    assert job_id in failed.rule_detail
    assert finding.rule == finding_pb2.RULE_DESTINATION_FILE_DIFFERS
    assert finding.offending_path == f"{run}/a.tif"
    theirs.rename(theirs.with_name("theirs.tif"))
    await engine.sync.RetryJob(sync_service_pb2.RetryJobRequest(job_id=job_id, reason="put aside"))
    await engine.until_sealed(job_id)
    assert not [f async for f in engine.problems.QueryProblems(query)]


async def test_an_equal_file_at_the_destination_counts_as_there(engine: Engine) -> None:
    site = engine.site
    run = site.make_run()
    there = site.at_nas(run) / "a.tif"
    there.parent.mkdir(parents=True)
    there.write_bytes(b"pixels")
    inode = there.stat().st_ino
    await engine.bring(run)
    assert there.stat().st_ino == inode


async def test_a_corrupted_byte_is_found_named_and_moves_no_job(engine: Engine) -> None:
    site = engine.site
    run = site.make_run({"a.tif": bytes(200_000), "b.tif": b"fine"})
    job = await engine.bring(run)
    request = sync_service_pb2.VerifyRunRequest(run=run, reason="audit")

    async def verify() -> sync_service_pb2.VerifyReport:
        (report,) = [u.report async for u in engine.sync.VerifyRun(request) if u.HasField("report")]
        return report

    report = await verify()
    assert (report.passed, report.expected, report.hashed, report.matched) == (True, 2, 2, 2)
    assert (await engine.job(job.job_id)).verify_passes == 2
    with open(site.at_nas(run) / "a.tif", "r+b") as file:
        file.seek(123_456)
        file.write(b"\x01")
    (site.at_nas(run) / "b.tif").unlink()
    (site.at_nas(run) / "stray.txt").write_text("whose?")
    report = await verify()
    assert not report.passed
    assert (list(report.missing), list(report.differing)) == (["b.tif"], ["a.tif"])
    assert list(report.unexpected) == ["stray.txt"]
    after = await engine.job(job.job_id)
    assert (after.state, after.verify_passes) == (job_pb2.JOB_STATE_VERIFIED, 0)
    assert list(after.failure.paths) == ["b.tif", "a.tif"]


async def test_hostile_names_arrive_unchanged(engine: Engine) -> None:
    names: list[bytes] = [
        b"two  spaces .txt",
        b"-rf",
        b"--delete",
        b"quote ' and \" here",
        b"back\\slash",
        b"new\nline",
        b"tab\tand\rreturn",
        b"star*question?",
        b"colon:pipe|",
        "µm – 試料 é".encode(),
        "é decomposed".encode(),
        b"invalid \xff\xfe utf-8",
        b"#;&|$(touch x)`touch y`",
        b"x" * 255,
        b"deep/" * 40 + b"leaf",
        b".hidden/.also",
        b"creation.json",
        b"notes.tmp",
    ]
    files = {name: b"content of " + name for name in names}
    run = engine.site.make_run(files)
    refused = await engine.enqueue(run)
    for rule in sorted({f.rule for f in refused.blocking_findings}):
        await engine.override(run, rule)
    assert finding_pb2.RULE_ILLEGAL_FILESYSTEM_CHARACTER in {f.rule for f in refused.blocking_findings}
    await engine.bring(run)
    same_tree(engine.site.local(run), engine.site.at_nas(run))
    manifest = (engine.site.at_nas(run) / ".exlab-wizard" / "checksums.sha256").read_bytes()
    result = subprocess.run(
        ["sha256sum", "-c", "--strict", "--quiet", "-"], input=manifest, cwd=engine.site.at_nas(run), check=False
    )
    assert result.returncode == 0


async def test_a_source_that_changes_while_it_is_copied_is_never_called_verified(site: Site) -> None:
    site.lab.settings["equipment"].clear()
    site.equip(transport={"bandwidth": {"upload_mbps": 80}})
    run = site.make_run({f"{n:02}.h5": os.urandom(1_000_000) for n in range(20)})
    async with running_engine(site) as engine:
        job_id = (await engine.enqueue(run)).job.job_id
        await engine.until(job_id, lambda u: u.progress.bytes_done > 0)
        with open(site.local(run) / "19.h5", "ab") as file:
            file.write(b"one line more")
        job = await engine.until(job_id, lambda u: bool(u.job.waiting_on) or u.job.sealed)
        if not job.sealed:
            assert job.waiting_on[0].condition == job_pb2.WAIT_CONDITION_SOURCE_UNSETTLED
        else:
            same_tree(site.local(run), site.at_nas(run))


async def test_a_file_that_rots_before_it_is_read_back_is_kept_aside_and_sent_once_more(site: Site) -> None:
    site.lab.settings["equipment"].clear()
    site.equip(transport={"bandwidth": {"upload_mbps": 320}})
    run = site.make_run({f"{n:02}.h5": os.urandom(5_000_000) for n in range(16)})
    async with running_engine(site) as engine:
        job_id = (await engine.enqueue(run)).job.job_id
        # The second landing is in the log, so the first one is done.
        await engine.until(job_id, lambda u: u.job.revision >= 3)
        landed = sorted(site.at_nas(run).glob("*.h5"))[0]
        with open(landed, "r+b") as file:
            file.seek(4_000_000)
            file.write(b"rotten")
        job = await engine.until_sealed(job_id)
        assert job.attempt == 2
        types = await engine.event_types(f"job-{job_id}")
        assert types.count("sync.job.verification_failed.v1") == 1
        same_tree(site.local(run), site.at_nas(run))
        (aside,) = (site.nas() / ".labferry-superseded").rglob("*.h5")
        assert aside.name == landed.name
        assert b"rotten" in aside.read_bytes()


async def test_an_empty_mount_point_is_never_filled_not_even_after_a_restart(site: Site) -> None:
    async with running_engine(site) as engine:
        await engine.bring(site.make_run())
    second = site.make_run({"b.tif": b"more"}, leaf="Run_2026-04-18T08-00")
    mounted = site.nas().with_name("the mounted NAS")
    site.nas().rename(mounted)
    site.nas().mkdir()
    async with running_engine(site) as engine:
        job_id = (await engine.enqueue(second)).job.job_id
        await engine.until_waiting(job_id, job_pb2.WAIT_CONDITION_DESTINATION_UNREACHABLE)
        assert not list(site.nas().iterdir())
        site.nas().rmdir()
        mounted.rename(site.nas())
        await engine.until_sealed(job_id)
        same_tree(site.local(second), site.at_nas(second))


async def test_an_equipment_or_destination_that_is_configured_no_more_is_waited_for_by_name(site: Site) -> None:
    site.equip("SCOPE_02")
    run = site.make_run({"a.tif": b"1"}, equipment="SCOPE_02")
    other = site.make_run()
    for equipment in ("SCOPE_02", "CONFOCAL_01"):
        site.nas(equipment).rename(site.nas(equipment).with_name(f"{equipment} away"))
    engine = await start_engine(site)
    jobs = [(await engine.enqueue(r)).job.job_id for r in (run, other)]
    await engine.service.stop()
    configured = site.lab.settings["equipment"]
    site.lab.settings["equipment"] = [
        {
            "id": "CONFOCAL_01",
            "local_root": str(site.local_root),
            "destinations": [{"name": "elsewhere", "transport": {"type": "mounted", "path": str(site.nas())}}],
        }
    ]
    async with running_engine(site) as engine:
        for job_id in jobs:
            await engine.until_waiting(job_id, job_pb2.WAIT_CONDITION_EQUIPMENT_NOT_CONFIGURED)
        assert site.creation(other).get("sync_status", "pending") == "pending"
    site.lab.settings["equipment"] = configured
    for equipment in ("SCOPE_02", "CONFOCAL_01"):
        site.nas(equipment).with_name(f"{equipment} away").rename(site.nas(equipment))
    async with running_engine(site) as engine:
        for job_id in jobs:
            await engine.until_sealed(job_id)


async def test_runs_of_a_local_root_that_is_not_mounted_are_waited_for(site: Site) -> None:
    run, gone = site.make_run(), site.make_run(leaf="Run_2026-04-18T09-00")
    away = site.nas().rename(site.nas().with_name("away"))
    async with running_engine(site) as engine:
        jobs = [(await engine.enqueue(one)).job.job_id for one in (run, gone)]
        for job_id in jobs:
            await engine.until_waiting(job_id, job_pb2.WAIT_CONDITION_DESTINATION_UNREACHABLE)
    away.rename(site.nas())
    unmounted = site.local_root.rename(site.lab.folder / "unmounted")
    site.local_root.mkdir()
    async with running_engine(site) as engine:
        for job_id in jobs:
            job = await engine.until_waiting(job_id, job_pb2.WAIT_CONDITION_OPERATOR)
            assert f"{site.local(run).parents[2]} is not there: local_root is not mounted" in job.waiting_on[0].detail
    site.local_root.rmdir()
    unmounted.rename(site.local_root)
    shutil.rmtree(site.local(gone))
    async with running_engine(site) as engine:
        await engine.until_sealed(jobs[0])
        failed = await engine.until_failed(jobs[1])
        assert failed.failure.kind == job_pb2.FAILURE_KIND_LOCAL_FILE_VANISHED
