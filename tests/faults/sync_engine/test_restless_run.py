"""A run that is changed, rots, is steered and killed under, all at once, comes to rest whole in the end.

What is done is drawn from a seed, in an order that the machine's own speed makes another one each time.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from labferry.events.v1 import event_log_service_pb2
from labferry.sync.v1 import equipment_service_pb2, job_pb2, run_pb2, sync_service_pb2
from tests.faults.sync_engine.test_replicas import LEASE, replica_of
from tests.integration.sync_engine.running_engine import (
    BLOCKED,
    EQUIPMENT,
    Engine,
    Site,
    new_site,
    sha256sum_agrees,
    start_engine,
)
from tests.integration.sync_engine.test_audits import rot
from tests.integration.sync_engine.test_cleanup import data_files

PLACES = ("near", "far")
STEPS = 120
MOST_ROUNDS = 30
# Answers that somebody who asks at the wrong moment gets, and asks again.
BUSY = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED, grpc.StatusCode.FAILED_PRECONDITION})


async def _unless_busy(call: Awaitable[object]) -> None:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        assert error.code() in BUSY, error


class _RestlessLab:
    """One run, two destinations, and the engines that serve it, each of its own site."""

    def __init__(self, sites: Sequence[Site], engines: list[Engine], seed: int) -> None:
        self._sites = sites
        self.engines = engines
        self._draw = random.Random(seed)
        self._added = 0
        files: dict[str | bytes, bytes] = {f"d{n % 7}/{n:02}.tif": self._content() for n in range(40)}
        self.run = sites[0].make_run(files)
        self.here = sites[0].local(self.run)

    def at(self, place: str) -> Path:
        return self._sites[0].at_nas(self.run, place)

    def _content(self) -> bytes:
        return self._draw.randbytes(8) * self._draw.randrange(1, 2000)

    def _some_file(self) -> str:
        return self._draw.choice(sorted(data_files(self.here)) or ["none"])

    async def step(self) -> None:
        engine = self._draw.choice(self.engines)
        (do,) = self._draw.choices(list(self._STEPS), list(self._STEPS.values()))
        await do(self, engine)

    async def _add(self, engine: Engine) -> None:
        self._added += 1
        (self.here / f"d{self._draw.randrange(7)}").mkdir(exist_ok=True)
        (self.here / f"d{self._draw.randrange(7)}-{self._added}.tif").write_bytes(self._content())

    async def _change(self, engine: Engine) -> None:
        path = self.here / self._some_file()
        if path.exists():
            path.write_bytes(self._content())

    async def _remove(self, engine: Engine) -> None:
        if len(data_files(self.here)) > 10:
            (self.here / self._some_file()).unlink()

    async def _rot(self, engine: Engine) -> None:
        path = self.at(self._draw.choice(PLACES)) / self._some_file()
        try:
            rot(path) if self._draw.random() < 0.5 else path.unlink()
        except FileNotFoundError:
            return

    async def _queue(self, engine: Engine) -> None:
        """And accept what it asks for."""
        try:
            answer = await engine.enqueue(self.run)
        except grpc.aio.AioRpcError as error:
            assert error.code() in BUSY, error
            return
        if answer.outcome == BLOCKED:
            for finding in answer.blocking_findings:
                words = finding.rule_detail.replace(";", " ").replace(".", " ").split()
                hashes = [word for word in words if len(word) == 64]
                new = hashes[0] if len(hashes) == 2 else ""
                await self._accept(engine, finding.offending_path.removeprefix(f"{self.run}/"), hashes[-1], new)

    async def _accept(self, engine: Engine, path: str, old: str, new: str) -> None:
        request = sync_service_pb2.AcceptChangeRequest(
            run=self.run, path=path, old_sha256=old, new_sha256=new, operator="asmith", reason="meant"
        )
        await _unless_busy(engine.sync.AcceptChange(request))

    async def _hold(self, engine: Engine) -> None:
        command = self._draw.choice([sync_service_pb2.JOB_COMMAND_PAUSE, sync_service_pb2.JOB_COMMAND_CANCEL])
        await _unless_busy(engine.steer_all(command, run=self.run))

    async def _go_on(self, engine: Engine) -> None:
        for command in (sync_service_pb2.JOB_COMMAND_RESUME, sync_service_pb2.JOB_COMMAND_RETRY):
            await _unless_busy(engine.steer_all(command, run=self.run))

    async def _verify(self, engine: Engine) -> None:
        async def verify() -> None:
            async for _ in engine.sync.VerifyRun(sync_service_pb2.VerifyRunRequest(run=self.run)):
                pass

        await _unless_busy(verify())

    async def _kill(self, engine: Engine) -> None:
        number = self.engines.index(engine)
        await engine.kill()
        self.engines[number] = await start_engine(self._sites[number])

    async def _trust(self, engine: Engine) -> None:
        for place in PLACES:
            request = equipment_service_pb2.TrustDestinationRequest(
                equipment_id=EQUIPMENT, destination=place, reason="looked at"
            )
            await _unless_busy(engine.equipment.TrustDestination(request))

    _STEPS: dict[Callable[[_RestlessLab, Engine], Awaitable[None]], int] = {  # noqa: RUF012 -- never written to
        _add: 15,
        _change: 10,
        _remove: 4,
        _rot: 8,
        _queue: 26,
        _hold: 7,
        _go_on: 10,
        _verify: 7,
        _kill: 5,
        _trust: 4,
    }

    async def come_to_rest(self) -> None:
        """An operator does what is asked for until both destinations hold the run."""
        engine = self.engines[0]
        for _ in range(MOST_ROUNDS):
            await self._trust(engine)
            await self._go_on(engine)
            await self._queue(engine)
            jobs = await self._latest(engine)
            for job in jobs:
                await engine.until(job.job_id, lambda update: _stands(update.job))
            jobs = await self._latest(engine)
            if any(job.waiting_on and not job.sealed for job in jobs):
                # A pause of half a minute, perhaps; another job needs none.
                await _unless_busy(engine.steer_all(sync_service_pb2.JOB_COMMAND_CANCEL, run=self.run))
            for job in jobs:
                for file in job.failure.differing_files:
                    await self._accept(engine, file.path, file.old_sha256, file.new_sha256)
            record = await engine.run(self.run)
            if record.sync_status == run_pb2.SYNC_STATUS_SYNCED and all(_is_over(job) for job in jobs):
                return
        raise AssertionError(f"it came to no rest: {await engine.run(self.run)}")

    async def _latest(self, engine: Engine) -> Sequence[job_pb2.Job]:
        by_place = {job.destination: job for job in (await engine.run(self.run)).jobs}
        return list(by_place.values())


def _is_over(job: job_pb2.Job) -> bool:
    return job.state == job_pb2.JOB_STATE_VERIFIED and job.sealed and job.verify_passes > 0


def _stands(job: job_pb2.Job) -> bool:
    """Nothing more comes of it by itself soon."""
    return _is_over(job) or job.state in (job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED) or bool(job.waiting_on)


@asynccontextmanager
async def _lab(postgres_url: str) -> AsyncIterator[Sequence[Site]]:
    """One machine with a log of its own; with a database two that share it."""
    async with new_site() as site:
        transports = [{"type": "mounted", "path": str(site.nas(destination=place))} for place in PLACES]
        for place in PLACES:
            site.nas(destination=place).mkdir(parents=True)
        destinations = [{"name": p, "transport": t} for p, t in zip(PLACES, transports, strict=True)]
        site.equip(destinations=destinations, max_parallel=2)
        site.lab.settings["verify"] = {"audit_interval_hours": 0.3 / 3600, "scrub_interval_days": 2 / 86400}
        # Nothing is cleaned: a copy that rots right before it is the only one is lost for good.
        site.lab.settings["nas_cleanup"] = {"min_verify_passes": 2}
        if not postgres_url:
            yield [site]
            return
        site.lab.settings["transfer"] = LEASE
        site.lab.settings["event_log"] = {"url": postgres_url, "blob_folder": str(site.lab.folder / "blobs")}
        async with replica_of(site, postgres_url) as second:
            yield [site, second]


async def _restless(postgres_url: str, seed: int) -> None:
    async with _lab(postgres_url) as sites:
        engines = [await start_engine(site) for site in sites]
        lab = _RestlessLab(sites, engines, seed)
        for _ in range(STEPS):
            await lab.step()
        await lab.come_to_rest()
        for place in PLACES:
            names = data_files(lab.here)
            assert sha256sum_agrees(lab.at(place)) == len(names)
            there = {name: (lab.at(place) / name).read_bytes() for name in names}
            assert there == {name: (lab.here / name).read_bytes() for name in names}
        verified = await lab.engines[0].log.VerifyLog(event_log_service_pb2.VerifyLogRequest())
        assert verified.intact
        for engine in lab.engines:
            assert await engine.service.stop() == 0
        for place in PLACES:
            # Not before: whether a storage can be written to is tried there now and then.
            assert os.listdir(sites[0].nas(destination=place) / ".labferry-incoming") == []
        for site in sites:
            lines = [line for line in site.lab.log_text("sync_engine").splitlines() if line.startswith("{")]
            assert [line for line in lines if json.loads(line)["level"] in ("error", "critical")] == []


@pytest.mark.slow
async def test_with_a_log_of_its_own() -> None:
    await _restless("", seed=1)


@pytest.mark.slow
async def test_with_two_engines_on_one_database(postgres_url: str) -> None:
    await _restless(postgres_url, seed=2)
