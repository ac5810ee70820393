"""A storage that spoils what it gets isn't sent the same file for ever: it is kept aside, told and doubted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from labferry.events.v1 import job_events_pb2
from labferry.sync.v1 import equipment_service_pb2, finding_pb2, problem_service_pb2
from tests.integration.sync_engine.running_engine import EQUIPMENT, PATIENCE, Engine, Site, running_engine
from tests.integration.sync_engine.test_audits import AT_ONCE, FAILED, REPAIRED, rot, rotted
from tests.integration.sync_engine.test_audits_move_on import until_events

DOUBTED = "sync.destination.doubted.v1"
SPOILED = ("a.tif", "b.tif", "c.tif")


@asynccontextmanager
async def spoiling(copy: Path) -> AsyncIterator[None]:
    """The storage alters these files whenever they are put there."""

    async def watch() -> None:
        while True:
            for path in (copy / name for name in SPOILED):
                # The engine may move it away in between.
                with suppress(FileNotFoundError):
                    if path.read_bytes() == path.name.encode():
                        rot(path)
            await asyncio.sleep(0.01)

    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()
        await asyncio.wait([watcher])


def superseded(site: Site) -> list[str]:
    kept = (site.nas() / ".labferry-superseded").rglob("*")
    return sorted(path.name.partition(".tif")[0] for path in kept if path.is_file())


async def suspected(engine: Engine) -> list[finding_pb2.Finding]:
    query = problem_service_pb2.QueryProblemsRequest(equipment_id=EQUIPMENT)
    found = [f async for f in engine.problems.QueryProblems(query)]
    return [f for f in found if f.rule == finding_pb2.RULE_TARGET_SUSPECTED]


async def until_wrong(engine: Engine, job_id: str, path: str) -> job_events_pb2.JobVerificationFailed:
    """The first failed pass that names this file."""
    async with asyncio.timeout(PATIENCE):
        while True:
            for event in await engine.events():
                failed = job_events_pb2.JobVerificationFailed()
                if event.stream == f"job-{job_id}" and event.payload.Unpack(failed) and path in failed.report.differing:
                    return failed
            await asyncio.sleep(0.1)


async def test_what_is_wrong_again_after_its_repair_is_kept_aside_until_the_storage_is_trusted(site: Site) -> None:
    site.lab.settings.update(verify={"audit_interval_hours": 1000}, nas_cleanup={"min_verify_passes": 100})
    async with running_engine(site) as engine:
        run = site.make_run({name: name.encode() for name in (*SPOILED, "good.tif")})
        job_id = (await engine.bring(run)).job_id
    site.lab.settings["verify"]["audit_interval_hours"] = AT_ONCE
    copy, stream, destination = site.at_nas(run), f"job-{job_id}", f"destination-{EQUIPMENT}/default"
    async with spoiling(copy), running_engine(site) as engine:
        await engine.until_event(destination, DOUBTED)
        seen = (await engine.event_types(stream)).count(FAILED)
        await until_events(engine, stream, FAILED, seen + 1)
        assert superseded(site) == sorted(2 * [name.removesuffix(".tif") for name in SPOILED])
        assert not [name for name in SPOILED if (copy / name).exists()], "what is wrong lies nowhere under its name"
        repairs = (await engine.event_types(stream)).count(REPAIRED)
        about_run = next(f for f in await rotted(engine, run) if f.offending_path == run)
        assert "not put back again" in about_run.rule_detail
        assert "a.tif and 2 more" in about_run.rule_detail
        (finding,) = await suspected(engine)
        assert "3 files" in finding.rule_detail
    async with running_engine(site) as engine:
        rot(copy / "good.tif")
        await until_wrong(engine, job_id, "good.tif")
        await until_events(engine, stream, FAILED, (await engine.event_types(stream)).count(FAILED) + 1)
        wrong = await engine.job(job_id)
        assert wrong.destination_suspected
        assert "default is under suspicion" in wrong.repair_problem
        assert (await engine.event_types(stream)).count(REPAIRED) == repairs, "nothing is sent to a suspected storage"
        assert (copy / "good.tif").exists()
        request = equipment_service_pb2.TrustDestinationRequest(
            equipment_id=EQUIPMENT, destination="default", reason="the controller was replaced"
        )
        await engine.equipment.TrustDestination(request)
        mended = await engine.until(job_id, lambda u: u.job.verify_passes > 0)
        assert (mended.destination_suspected, mended.repair_problem) == (False, "")
        for name in (*SPOILED, "good.tif"):
            assert (copy / name).read_bytes() == name.encode()
        assert await rotted(engine, run) == await suspected(engine) == []
