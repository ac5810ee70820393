"""A failure after which the destination, asked again, says something else; and defects in the middle of a seal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from labferry.sync.v1 import job_pb2
from libs.run_tree.creation_json import creation_path
from libs.run_tree.creation_record import CreationRecord, SyncStatus, encode_creation
from services.sync_engine.jobs.job import JobState, WaitCondition
from services.sync_engine.runs.creation_projection import CreationFiles
from services.sync_engine.runs.location import LocatedRun
from services.sync_engine.transfer.mounted import MountedTransport
from services.sync_engine.transfer.transport import FailureKind, TransferError
from tests.faults.sync_engine.engine_parts import RUN, engine_parts
from tests.integration.sync_engine.running_engine import Site, running_engine
from tests.integration.transfer.far_servers import Sshd, make_key, running_sshd


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    with running_sshd(tmp_path / "sshd") as running:
        yield running


async def test_a_line_that_is_cut_and_then_leads_to_another_host(site: Site, sshd: Sshd) -> None:
    equipment = "SCOPE_02"
    transport = {
        "type": "rsync_ssh",
        "ssh_target": sshd.access.target,
        "ssh_port": sshd.access.port,
        "ssh_key_path": str(sshd.access.key_path),
        "known_hosts": str(sshd.access.known_hosts),
        "remote_path": str(site.nas(equipment)),
        "bandwidth": {"upload_mbps": 16},
    }
    site.equip(equipment, destinations=[{"name": "far", "transport": transport}])
    run = site.make_run({"large.tif": os.urandom(20_000_000)}, equipment=equipment)
    async with running_engine(site) as engine:
        job_id = (await engine.enqueue(run)).job.job_id
        await engine.until_copying(job_id)
        key = make_key(sshd.folder / "another")
        sshd.access.known_hosts.write_text(f"[127.0.0.1]:{sshd.access.port} {key}")
        sessions = subprocess.run(["pgrep", "-P", str(sshd.process.pid)], capture_output=True, check=True)
        for session in sessions.stdout.split():
            os.kill(int(session), signal.SIGKILL)
        job = await engine.until_state(job_id, job_pb2.JOB_STATE_FAILED)
        assert job.failure.kind == job_pb2.FAILURE_KIND_CONFIGURATION
        assert "host key" in job.failure.message.lower()
        assert "before that: sending" in job.failure.message


@pytest.mark.parametrize("kind", [FailureKind.NETWORK, FailureKind.TOOL_FAILED, FailureKind.CONFIGURATION])
async def test_a_destination_that_goes_away_in_the_middle_burns_no_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: FailureKind
) -> None:
    nas, away = tmp_path / "nas", tmp_path / "away"

    def breaks(*_: object, **__: object) -> None:
        nas.rename(away)
        raise TransferError(kind, "sending (exit status 11): No such file or directory")

    async with engine_parts(tmp_path) as parts:
        (parts.here / "a.tif").write_bytes(b"pixels")
        with monkeypatch.context() as faults:
            faults.setattr(MountedTransport, "copy", breaks)
            await parts.bring()
        (job,) = await parts.bench.jobs_of_run(RUN)
        assert job.wait is not None
        assert job.wait.condition is WaitCondition.DESTINATION_UNREACHABLE
        assert (job.state, job.network_failures, job.tool_failures) == (JobState.QUEUED, 0, 0)


async def test_a_tool_that_breaks_before_a_destination_that_answers_burns_attempts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object, **__: object) -> None:
        raise TransferError(FailureKind.TOOL_FAILED, "sending (exit status 22): out of memory")

    async with engine_parts(tmp_path) as parts:
        (parts.here / "a.tif").write_bytes(b"pixels")
        monkeypatch.setattr(MountedTransport, "copy", breaks)
        await parts.bring()
        (job,) = await parts.bench.jobs_of_run(RUN)
        for failures, pause in ((1, 30), (2, 120)):
            assert (job.state, job.tool_failures, job.attempt) == (JobState.QUEUED, failures, failures)
            assert job.backoff is not None
            assert abs(job.backoff.total_seconds() / pause - 1) <= 0.1
            parts.clock.now += timedelta(seconds=2 * pause)
            await parts.step(job.job_id)
            (job,) = await parts.bench.jobs_of_run(RUN)
        assert job.failure is not None
        assert (job.state, job.failure.message) == (JobState.FAILED, "sending (exit status 22): out of memory")


@pytest.mark.parametrize(
    ("at_seal", "at_check", "told"),
    [
        (
            TransferError(FailureKind.NETWORK, "sealing: Input/output error"),
            TransferError(FailureKind.CONFIGURATION, "writing a probe file: Read-only file system"),
            "writing a probe file: Read-only file system; before that: sealing: Input/output error",
        ),
        (RuntimeError("a defect"), None, "sealing: internal error (RuntimeError); the service's log has the details"),
    ],
)
async def test_a_seal_that_fails_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_seal: Exception, at_check: TransferError | None, told: str
) -> None:
    def failing(error: Exception) -> None:
        raise error

    async with engine_parts(tmp_path) as parts:
        (parts.here / "a.tif").write_bytes(b"pixels")
        with monkeypatch.context() as faults:
            faults.setattr(MountedTransport, "seal", lambda self, files, **fields: failing(at_seal))
            if at_check is not None:
                # It answers while the run is copied.
                answers = iter([None])
                faults.setattr(MountedTransport, "check", lambda self: next(answers, at_check) and failing(at_check))
            await parts.bring()
            (job,) = await parts.bench.jobs_of_run(RUN)
            job_id, log = job.job_id, parts.bench.log
            assert (job.state, job.sealed) == (JobState.VERIFIED, False)
            assert job.wait is not None
            assert (job.wait.condition, job.wait.detail) == (WaitCondition.OPERATOR, told)
            end = await parts.runner.step(job_id)
            assert end.again is not None
            assert timedelta(0) < end.again - parts.clock() <= timedelta(minutes=1)
            # Told once: waiting for the same is no news.
            assert await log.job(job_id) == job
        await parts.step(job_id)
        made_up = await log.job(job_id)
        assert made_up is not None
        assert made_up.sealed


@pytest.mark.parametrize("persists", [False, True])
async def test_a_seal_says_what_the_log_says_whoever_writes_creation_json_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, persists: bool
) -> None:
    def status(run: Path) -> str:
        found: str = json.loads((run / ".exlab-wizard" / "creation.json").read_text())["sync_status"]
        return found

    async with engine_parts(tmp_path) as parts:
        (parts.here / "a.tif").write_bytes(b"pixels")
        project = CreationFiles.project
        written: list[int] = []

        async def and_then_the_wizard(
            self: CreationFiles, located: LocatedRun, read: CreationRecord | None = None
        ) -> CreationRecord:
            """It knows only what it read before."""
            record = await project(self, located, read)
            if record.sync_status is SyncStatus.SYNCED and (persists or not written):
                written.append(1)
                write_record(located, record.with_sync_status(SyncStatus.PENDING))
            return record

        with monkeypatch.context() as faults:
            faults.setattr(CreationFiles, "project", and_then_the_wizard)
            await parts.bring()
        (job,) = await parts.bench.jobs_of_run(RUN)
        assert job.sealed is not persists
        if persists:
            assert job.wait is not None
            assert job.wait.detail == "another program keeps writing creation.json"
            await parts.step(job.job_id)
        assert status(parts.here) == status(parts.there) == "synced"


def write_record(located: LocatedRun, record: CreationRecord) -> None:
    creation_path(located.folder).write_bytes(encode_creation(record))
