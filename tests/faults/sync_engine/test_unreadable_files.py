"""A file that its storage can't read differs; a storage that can't be read was not checked (SPEC §4)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from labferry.sync.v1 import job_pb2, sync_service_pb2
from services.sync_engine.jobs.file_list import read_evidence
from services.sync_engine.transfer import chunk_reader
from services.sync_engine.validation.job_findings import findings_of_job
from tests.faults.sync_engine.audited_copy import audited_on_failing_disk
from tests.faults.sync_engine.failing_disk import FailingDisk, failing_disk
from tests.integration.sync_engine.running_engine import Engine, Site, running_engine, same_tree
from tests.integration.sync_engine.test_audits import AT_ONCE, REPAIRED, rotted
from tests.integration.sync_engine.test_far_transports import equip, rsync_ssh
from tests.integration.transfer.far_servers import Sshd, running_sshd

WORDS = "b.tif: Input/output error"


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running_sshd(tmp_path_factory.mktemp("far") / "sshd") as running:
        yield running


@pytest.fixture
def far_disk(site: Site) -> Iterator[FailingDisk]:
    site.nas().mkdir(parents=True, exist_ok=True)
    with failing_disk(site.nas()) as disk:
        yield disk


async def verified(engine: Engine, run: str) -> sync_service_pb2.VerifyReport:
    request = sync_service_pb2.VerifyRunRequest(run=run, reason="a rumour")
    (report,) = [u.report async for u in engine.sync.VerifyRun(request) if u.HasField("report")]
    return report


def spoil(disk: FailingDisk, *paths: Path) -> None:
    """Where they are read as any program does, what memory holds of them has to go first."""
    disk.spoil(*paths)
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


async def test_a_file_that_cannot_be_read_is_that_files_and_is_put_back(tmp_path: Path) -> None:
    async with audited_on_failing_disk(tmp_path) as (copy, disk):
        disk.spoil(copy.parts.there / "b.tif")
        assert await copy.scrub()
        (failed,) = await copy.readings()
        assert (list(failed.report.differing), list(failed.report.unreadable)) == (["b.tif"], [WORDS])
        proven = read_evidence(copy.parts.bench.blobs, failed.evidence_blob)
        assert [file.path for file in proven] == [b"a.tif", b"c.tif"]
        assert WORDS in findings_of_job(await copy.job())[0].rule_detail
        assert await copy.audit()
        assert (await copy.job()).verify_passes == 1
        assert (copy.parts.there / "b.tif").read_bytes() == b"b.tif"


async def test_a_storage_that_reads_nothing_any_more_was_not_checked(tmp_path: Path) -> None:
    async with audited_on_failing_disk(tmp_path) as (copy, disk):
        disk.die()
        assert not await copy.scrub()
        assert not await copy.audit()
        for failed in await copy.readings():
            assert "Input/output error" in failed.report.note
            assert (list(failed.report.differing), list(failed.report.missing)) == ([], [])
        assert (await copy.job()).verify_passes == 0


async def test_a_storage_of_which_no_file_can_be_read_was_not_checked_whatever_else_it_reads(tmp_path: Path) -> None:
    async with audited_on_failing_disk(tmp_path) as (copy, disk):
        disk.spoil(*(copy.parts.there / name for name in ("a.tif", "b.tif", "c.tif")))
        assert not await copy.scrub()
        (failed,) = await copy.readings()
        assert "Input/output error" in failed.report.note
        assert not failed.report.differing


async def test_files_that_cannot_be_read_one_after_the_other_are_a_dead_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with audited_on_failing_disk(tmp_path) as (copy, disk):
        disk.spoil(*(copy.parts.there / name for name in ("b.tif", "c.tif")))
        with monkeypatch.context() as fewer:
            fewer.setattr(chunk_reader, "_MOST_IN_A_ROW", 1)
            assert not await copy.scrub()
        assert await copy.scrub()
        dead, damaged = await copy.readings()
        assert dead.report.note == "network: reading back c.tif at the destination: Input/output error"
        assert list(damaged.report.unreadable) == ["b.tif: Input/output error", "c.tif: Input/output error"]


async def test_nor_is_one_behind_ssh_more_than_that_files_and_it_is_put_back(
    site: Site, sshd: Sshd, far_disk: FailingDisk
) -> None:
    site.lab.settings["equipment"] = []
    equip(site, rsync_ssh(site, sshd))
    site.lab.settings.update(verify={"audit_interval_hours": 1000})
    run = site.make_run({f"{name}.tif": name.encode() * 5000 for name in "abcde"} | {"odd name's.tif": b"odd" * 5000})
    async with running_engine(site) as engine:
        job = await engine.bring(run)
        spoil(far_disk, site.at_nas(run) / "b.tif", site.at_nas(run) / "odd name's.tif")
        report = await verified(engine, run)
        assert list(report.unreadable) == [WORDS, "odd name's.tif: Input/output error"]
        assert (list(report.differing), report.hashed) == (["b.tif", "odd name's.tif"], 4)
    site.lab.settings["verify"]["audit_interval_hours"] = AT_ONCE
    async with running_engine(site) as engine:
        await engine.until_event(f"job-{job.job_id}", REPAIRED)
        job = await engine.until(job.job_id, lambda u: u.job.verify_passes == 2)
        assert job.state == job_pb2.JOB_STATE_VERIFIED
        same_tree(site.local(run), site.at_nas(run))


async def test_a_storage_behind_ssh_of_which_no_file_can_be_read_was_not_checked(
    site: Site, sshd: Sshd, far_disk: FailingDisk
) -> None:
    site.lab.settings["equipment"] = []
    equip(site, rsync_ssh(site, sshd))
    run = site.make_run({f"{name}.tif": name.encode() * 5000 for name in "ab"})
    async with running_engine(site) as engine:
        job = await engine.bring(run)
        spoil(far_disk, *(site.at_nas(run) / f"{name}.tif" for name in "ab"))
        with pytest.raises(grpc.aio.AioRpcError, match=r"a\.tif: Input/output error") as unavailable:
            await verified(engine, run)
        assert unavailable.value.code() is grpc.StatusCode.UNAVAILABLE
        assert (await engine.job(job.job_id)).verify_passes == 0
        (finding,) = await rotted(engine, run)
        assert "Input/output error" in finding.rule_detail
