"""A folder below a root becomes a symlink to another place and back, again and again, while runs are worked on: nothing
elsewhere is read, written or deleted (SPEC §1).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from labferry.sync.v1 import job_pb2, problem_service_pb2, sync_service_pb2
from labferry.sync.v1 import staging_service_pb2 as staging
from labferry.sync.v1.finding_pb2 import RULE_LEFTOVER_JINJA_MARKER
from tests.faults.hardening.canary import CANARY, Canary
from tests.faults.hardening.swapping import swapping
from tests.integration.sync_engine.running_engine import (
    EQUIPMENT,
    PATIENCE,
    PROJECT,
    Engine,
    Site,
    new_site,
    running_engine,
)
from tests.integration.sync_engine.staging_site import VERIFIED, looks, push, stage, until_state
from tests.integration.sync_engine.test_far_transports import rclone, rsync_ssh, sshd  # noqa: F401 -- a fixture
from tests.integration.transfer.far_servers import Sshd

pytestmark = pytest.mark.slow

LEAVES = [f"Run_2026-04-17T14-{minute:02}" for minute in range(3)]
FILES = {"a.tif": b"pixels", "notes.md": b"fine", "sub/a.tif": b"more", "sub/notes.md": b"fine"}
CLEANED = {"enabled": True, "min_verify_passes": 1, "min_age_hours": 0, "retain_cache": False}
# How far below the folder of a run's equipment the swapped one lies.
DEPTHS = {"equipment": 0, "project": 1, "run": 3, "subfolder": 4, "cache": 4}
TRIES = 5


def swapped_folder(root: Path, run: str, swapped: str) -> Path:
    below = [*run.split("/")[1:], ".exlab-wizard" if swapped == "cache" else "sub"]
    return root.joinpath(EQUIPMENT, *below[: DEPTHS[swapped]])


def below_swapped(runs: list[str], swapped: str) -> list[str]:
    """Where the runs lie below the swapped folder; it is one of each run's own where it is that deep."""
    return sorted({"/".join(run.split("/")[1 + DEPTHS[swapped] :]) for run in runs})


class Client:
    """Calls that are answered or refused, whichever came of the moment's folder; a defect is neither."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.heard: list[str] = []

    async def settled(self, call: Any) -> Any:
        try:
            answers = [a async for a in call] if hasattr(call, "__aiter__") else [await call]
        except grpc.aio.AioRpcError as error:
            if error.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN):
                raise AssertionError(self._site.lab.log_text("sync_engine")[-20000:]) from error
            self.heard.append(repr(error))
            return None
        self.heard += map(str, answers)
        return answers[-1] if answers else None

    async def ask_everything(self, engine: Engine, run: str, adopted: Path, number: int) -> None:
        pb = sync_service_pb2
        calls: list[Callable[[], Any]] = [
            lambda: engine.sync.EnqueueRun(pb.EnqueueRunRequest(run=run)),
            lambda: engine.sync.AdoptRun(
                pb.AdoptRunRequest(
                    source_folder=str(adopted), equipment_id=EQUIPMENT, project=f"Adopted {number}", operator="asmith"
                )
            ),
            lambda: engine.problems.QueryProblems(problem_service_pb2.QueryProblemsRequest(run=run)),
            lambda: engine.problems.QueryProblems(problem_service_pb2.QueryProblemsRequest(equipment_id=EQUIPMENT)),
            lambda: engine.override(run, RULE_LEFTOVER_JINJA_MARKER),
            lambda: engine.run(run),
            lambda: engine.sync.VerifyRun(pb.VerifyRunRequest(run=run, reason="because")),
            lambda: engine.sync.CleanRun(pb.CleanRunRequest(run=run, reason="because")),
        ]
        for call in calls:
            await self.settled(call())

    def assert_heard_nothing_of(self, canary: bytes) -> None:
        assert self.heard
        assert [said for said in self.heard if canary.decode() in said] == []


@pytest.mark.parametrize("swapped", DEPTHS)
async def test_nothing_elsewhere_is_read_or_written(swapped: str) -> None:
    async with new_site() as site:
        site.equip()
        site.lab.settings["nas_cleanup"] = CLEANED
        runs = [site.make_run(FILES, leaf=leaf) for leaf in LEAVES]
        canary = Canary.at(site.lab.folder / "outside", *below_swapped(runs, swapped))
        adopted = site.local_root / EQUIPMENT / PROJECT / "Runs" / "foreign"
        adopted.mkdir()
        (adopted / "a.tif").write_bytes(b"pixels")
        client = Client(site)
        async with running_engine(site) as engine:
            for number, run in enumerate(runs):
                with swapping(swapped_folder(site.local_root, run, swapped), canary.folder):
                    await client.ask_everything(engine, run, adopted, number)
                    await until_at_rest(engine)
            assert await engine.service.health() == health_pb2.HealthCheckResponse.SERVING
            undisturbed = site.make_run(FILES, leaf="Run_2026-04-17T20-00")
            await engine.bring(undisturbed)
        canary.assert_untouched()
        assert canary.traces_below(site.nas(), site.local_root) == []
        client.assert_heard_nothing_of(CANARY)


@pytest.mark.parametrize("swapped", ["project", "run", "subfolder"])
async def test_nothing_elsewhere_is_deleted(swapped: str) -> None:
    async with new_site() as site:
        site.equip()
        site.lab.settings["nas_cleanup"] = CLEANED
        runs = [site.make_run(FILES, leaf=leaf) for leaf in LEAVES[:2]]
        client = Client(site)
        async with running_engine(site) as engine:
            for run in runs:
                await engine.bring(run)
            outside = {run: same_files_elsewhere(site, run, swapped) for run in runs}
            for run in runs:
                with swapping(swapped_folder(site.local_root, run, swapped), outside[run].folder):
                    await until_cleaned(client, lambda run=run: engine.sync.CleanRun(clean_request(run)))
                await until_cleaned(client, lambda run=run: engine.sync.CleanRun(clean_request(run)))
            assert [run for run in runs if site.local(run).joinpath("a.tif").exists()] == []
        for canary in outside.values():
            canary.assert_untouched()


def same_files_elsewhere(site: Site, run: str, swapped: str) -> Canary:
    """Hard links to the run's files, in folders as they lie below the swapped one: each is, but for its place, exactly
    what is to be deleted."""
    outside = site.lab.folder / f"outside {Path(run).name}"
    source = swapped_folder(site.local_root, run, swapped)
    for path in files_below(site.local(run)):
        if path.is_relative_to(source):
            link = outside / path.relative_to(source)
            link.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, link)
    return Canary.of(outside)


def files_below(folder: Path) -> Iterator[Path]:
    # A log is written on in its place, so that its links would change with it.
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".log")


def clean_request(run: str) -> sync_service_pb2.CleanRunRequest:
    return sync_service_pb2.CleanRunRequest(run=run, reason="because")


async def until_cleaned(client: Client, call: Callable[[], Awaitable[Any]]) -> None:
    """Asked until it says so, at most a few times."""
    for _ in range(TRIES):
        answer = await client.settled(call())
        if answer is not None and answer.cleaned:
            return


async def test_nothing_beside_the_staging_root() -> None:
    swapped = "project"
    async with new_site() as site:
        site.equip()
        root = stage(site)
        site.lab.settings["nas_cleanup"] = CLEANED
        pushed = push(site, FILES)
        run = pushed.run
        canary = Canary.at(site.lab.folder / "outside", *below_swapped([run], swapped))
        client = Client(site)
        async with running_engine(site) as engine:
            pushed.finish()
            with swapping(swapped_folder(root, run, swapped), canary.folder):
                await looks(engine)
                await client.settled(engine.problems.QueryProblems(problem_service_pb2.QueryProblemsRequest()))
                await until_at_rest(engine)
            await client.settled(engine.sync.EnqueueRun(sync_service_pb2.EnqueueRunRequest(run=run)))
            done = await until_state(engine, run, VERIFIED)
            await engine.until_sealed(done.job_ids[0])
            clear = staging.ClearStagedRunsRequest(runs=[run], reason="because")
            with swapping(swapped_folder(root, run, swapped), canary.folder):
                for _ in range(TRIES):
                    await client.settled(engine.staging.ClearStagedRuns(clear))
            # What was refused in between may have left a condition that passes by itself.
            async with asyncio.timeout(PATIENCE):
                while not (await engine.staging.ClearStagedRuns(clear)).runs[0].cleared:
                    await asyncio.sleep(0.2)
        canary.assert_untouched()
        assert canary.traces_below(site.nas(), root) == []
        client.assert_heard_nothing_of(CANARY)


@pytest.mark.parametrize(
    ("transport", "swapped"), [(rclone, "subfolder"), (rsync_ssh, "run"), (rsync_ssh, "subfolder")]
)
async def test_a_foreign_tool_is_led_nowhere_either(sshd: Sshd, transport: Any, swapped: str) -> None:  # noqa: F811
    """rsync alone follows what is swapped within the run; what it then brings is never called verified."""
    async with new_site() as site:
        site.equip(destinations=[{"name": "far", "transport": transport(site, sshd)}])
        runs = [site.make_run(FILES, leaf=leaf) for leaf in LEAVES]
        canary = Canary.at(site.lab.folder / "outside", *below_swapped(runs, swapped))
        client = Client(site)
        async with running_engine(site) as engine:
            for run in runs:
                with swapping(swapped_folder(site.local_root, run, swapped), canary.folder):
                    await client.settled(engine.sync.EnqueueRun(sync_service_pb2.EnqueueRunRequest(run=run)))
                    await until_at_rest(engine)
            jobs = (await engine.sync.ListJobs(sync_service_pb2.ListJobsRequest(page_size=100))).jobs
        canary.assert_untouched()
        verified = [site.at_nas(job.run) for job in jobs if job.state == job_pb2.JOB_STATE_VERIFIED]
        assert canary.traces_below(*verified) == []
        if (transport, swapped) != (rsync_ssh, "subfolder"):
            assert canary.traces_below(site.nas()) == []


async def until_at_rest(engine: Engine) -> None:
    """No job is on its way any more: verified, failed, or waiting."""
    async with asyncio.timeout(60):
        while True:
            answer = await engine.sync.ListJobs(sync_service_pb2.ListJobsRequest(page_size=100))
            if all(job.state != job_pb2.JOB_STATE_RUNNING for job in answer.jobs):
                return
            await asyncio.sleep(0.05)
