"""Refusals that only a faulty surrounding brings about: each with its own reason, nothing half done."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from labferry.sync.v1 import finding_pb2, sync_service_pb2
from tests.faults.sync_engine.test_destinations import mounted_tmpfs
from tests.integration.sync_engine.running_engine import Engine, Site, creation_document, new_site, running_engine
from tests.integration.sync_engine.test_bad_input import refused

ANONYMOUS = {
    "problem_class": "leftover_jinja_marker",
    "operator": "bjones",
    "recorded_at": "2026-04-17T15:00:00Z",
    "reason": "seen",
}


async def test_a_creation_json_that_can_not_be_written_is_left_as_it_was(engine: Engine) -> None:
    site = engine.site
    run = site.make_run(creation={})
    cache = site.local(run) / ".exlab-wizard"
    cache.mkdir()
    with mounted_tmpfs(cache, "size=1m"):
        site.write_creation(run, creation_document(validation_overrides=[ANONYMOUS]))
        before = site.creation_path(run).read_bytes()
        subprocess.run(["mount", "-o", "remount,ro", str(cache)], check=True)
        code, reason, _ = await refused(engine.enqueue(run))
        assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "CREATION_FILE_NOT_WRITABLE")
        assert site.creation_path(run).read_bytes() == before
    assert {e.type for e in await engine.events()} == {"log.store_created.v1"}


@pytest.mark.slow
async def test_a_creation_json_that_another_program_keeps_locked(engine: Engine) -> None:
    site = engine.site
    run = site.make_run(creation=creation_document(validation_overrides=[ANONYMOUS]))
    holding = (
        "import sys; from filelock import FileLock\n"
        "with FileLock(sys.argv[1]): print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holding, f"{site.creation_path(run)}.lock"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        code, reason, _ = await refused(engine.enqueue(run))
        assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "CREATION_FILE_LOCKED")
        other.kill()
    assert (await engine.enqueue(run)).outcome == sync_service_pb2.ENQUEUE_OUTCOME_QUEUED


async def test_a_destination_that_can_not_be_read_back_proves_nothing(engine: Engine) -> None:
    site = engine.site
    run = site.make_run()
    job = await engine.bring(run)
    site.nas().rename(site.nas().with_name("away"))
    verify = engine.sync.VerifyRun(sync_service_pb2.VerifyRunRequest(run=run))
    assert (await refused(verify))[:2] == (grpc.StatusCode.UNAVAILABLE, "DESTINATION_UNUSABLE")
    assert (await engine.job(job.job_id)).verify_passes == 1


async def test_a_full_log_disk_refuses_writes_and_reads_go_on() -> None:
    async with new_site() as site:
        site.equip()
        state = site.lab.state_dir
        state.mkdir()
        with mounted_tmpfs(state, "size=4m"):
            async with running_engine(site) as engine:
                run = site.make_run()
                await engine.override(run, finding_pb2.RULE_LEFTOVER_JINJA_MARKER)
                before = site.creation(run)
                _fill(state)
                code, reason = await _until_refused(engine, run)
                assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "LOG_DISK_FULL")
                recorded = await engine.overrides(run)
                assert recorded[0].active
                (state / "filler").unlink()
                await engine.override(run, finding_pb2.RULE_RESERVED_FILESYSTEM_NAME)
                in_file = site.creation(run)["validation_overrides"]
                assert in_file[: len(before["validation_overrides"])] == before["validation_overrides"]
                assert [e["id"] for e in in_file] == [o.id for o in await engine.overrides(run)]


def _fill(folder: Path) -> None:
    try:
        with open(folder / "filler", "wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
    except OSError:
        return


async def _until_refused(engine: Engine, run: str) -> tuple[grpc.StatusCode, str]:
    """The log's pages that are in place still take a few events; then none any more."""
    for number in range(2000):
        try:
            await engine.override(run, finding_pb2.RULE_LEFTOVER_JINJA_MARKER, reason=f"{number} " + "x" * 1900)
        except grpc.aio.AioRpcError as error:

            async def again(error: grpc.aio.AioRpcError = error) -> None:
                raise error

            return (await refused(again()))[:2]
    raise AssertionError("the log took everything")


async def test_a_run_that_can_not_be_read_is_refused_by_name(engine: Engine, site: Site) -> None:
    run = site.make_run()
    source = site.local_root / "incoming" / "odd"
    source.mkdir(parents=True)
    subprocess.run(["mkfifo", str(source / "pipe")], check=True)
    (source / "a.tif").write_bytes(b"1")
    adopt = engine.sync.AdoptRun(
        sync_service_pb2.AdoptRunRequest(
            source_folder=str(source), equipment_id="CONFOCAL_01", project="P", operator="asmith"
        )
    )
    code, reason, _ = await refused(adopt)
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SOURCE_UNREADABLE")
    await engine.bring(run)
