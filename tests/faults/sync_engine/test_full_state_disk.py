"""The disk under the engine's own files fills up: what can't be recorded waits, and goes on when there is room."""

from __future__ import annotations

import os
from pathlib import Path

import grpc

from labferry.sync.v1 import job_pb2, sync_service_pb2
from tests.faults.sync_engine.test_destinations import mounted_tmpfs
from tests.integration.sync_engine.running_engine import new_site, running_engine, same_tree
from tests.integration.sync_engine.test_bad_input import refused

LEFT = 1_200_000
LONG_NAMES = {f"{'n' * 220}{number:05}.raw": b"%d" % number for number in range(1500)}
"""What is left takes the lists of them in small portions and the events of a few jobs; one whole list finds no room."""


async def test_a_nearly_full_state_disk_ends_no_job_and_proofs_are_refused_as_full() -> None:
    async with new_site() as site:
        site.equip()
        state = site.lab.state_dir
        state.mkdir()
        with mounted_tmpfs(state, "size=40m", "mode=700"):
            async with running_engine(site) as engine:
                first = site.make_run(LONG_NAMES)
                await engine.bring(first)
                filler = _fill(state)
                second = site.make_run(LONG_NAMES, leaf="Run_2026-04-17T16-00")
                job_id = (await engine.enqueue(second)).job.job_id
                job = await engine.until_waiting(job_id, job_pb2.WAIT_CONDITION_STATE_DISK_FULL)
                assert job.state == job_pb2.JOB_STATE_QUEUED
                assert job.waiting_on[0].HasField("next_try_time")
                assert job.waiting_on[0].who_can_clear == "it"
                verify = engine.sync.VerifyRun(sync_service_pb2.VerifyRunRequest(run=first))
                assert (await refused(verify))[:2] == (grpc.StatusCode.RESOURCE_EXHAUSTED, "LOG_DISK_FULL")
                filler.unlink()
                job = await engine.until_sealed(job_id)
                assert "sync.job.failed.v1" not in await engine.event_types(f"job-{job_id}")
                same_tree(site.local(second), site.at_nas(second))


def _fill(folder: Path) -> Path:
    disk = os.statvfs(folder)
    filler = folder / "filler"
    filler.write_bytes(bytes(disk.f_bavail * disk.f_frsize - LEFT))
    return filler
