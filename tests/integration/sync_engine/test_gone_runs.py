"""What is only at the storage: a run whose folder went with its cleanup is told of like any other (SPEC §§3-4)."""

from __future__ import annotations

import shutil

import grpc

from cli.why import answers
from labferry.sync.v1 import finding_pb2, job_pb2, problem_service_pb2, run_pb2
from tests.integration.sync_engine.running_engine import EQUIPMENT, Engine, Site, running_engine
from tests.integration.sync_engine.test_bad_input import refused
from tests.integration.sync_engine.test_cleanup import ALLOWED, until_cleaned, verify
from tests.integration.sync_engine.test_problems import _problems as problems

AT_ONCE = {**ALLOWED, "min_verify_passes": 1, "retain_cache": False}


async def test_the_only_copy_of_a_run_that_is_gone_here_is_told_when_it_rots(site: Site) -> None:
    site.lab.settings["nas_cleanup"] = AT_ONCE
    async with running_engine(site) as engine:
        run = site.make_run()
        job_id = (await engine.enqueue(run)).job.job_id
        await until_cleaned(engine, job_id)
        assert [path for path in site.local(run).rglob("*") if not path.is_dir()] == []
        assert await problems(engine, run=run) == []
        (site.local(run) / "found.tif").write_bytes(b"nobody knows of it")
        assert [f.rule for f in await problems(engine, run=run)] == [finding_pb2.RULE_ORPHAN]
        shutil.rmtree(site.local(run))
        (site.at_nas(run) / "a.tif").write_bytes(b"pixelz")
        assert not await verify(engine, run)
        for scope in (
            {},
            {"run": run},
            {"equipment_id": EQUIPMENT},
            {"project_path": "/".join(run.split("/")[:2])},
        ):
            told = [f for f in await problems(engine, **scope) if f.rule == finding_pb2.RULE_COPY_ROTTED]
            assert [f.offending_path for f in told] == [run, f"{run}/a.tif"], scope
        found = await engine.run(run)
        assert found.sync_status == run_pb2.SYNC_STATUS_CLEANED
        assert [a.condition for a in answers(found, await problems(engine, run=run))] == ["verification_failed"]
        unknown = problem_service_pb2.QueryProblemsRequest(run=run.replace("14-32", "23-59"))
        assert (await refused(_first(engine, unknown)))[:2] == (grpc.StatusCode.NOT_FOUND, "RUN_NOT_FOUND")


async def test_a_run_that_was_renamed_here_is_not_to_be_queued_under_its_old_name(engine: Engine) -> None:
    run = engine.site.make_run()
    await engine.bring(run)
    renamed = engine.site.local(run).rename(engine.site.local(run).with_name("Run_2026-04-17T15-00"))
    (answer,) = answers(await engine.run(run), await problems(engine, run=run))
    assert (answer.condition, answer.needs_somebody, answer.to_do) == ("done", False, ())
    assert "no folder of its name is found here any more" in answer.detail
    renamed.rename(engine.site.local(run))
    (engine.site.local(run) / "late.tif").write_bytes(b"late")
    engine.site.nas().rename(engine.site.nas().with_name("away"))
    amendment = (await engine.enqueue(run)).job.job_id
    await engine.until_waiting(amendment, job_pb2.WAIT_CONDITION_DESTINATION_UNREACHABLE)
    await engine.steer("CancelJob", amendment)
    engine.site.local(run).rename(renamed)
    found = await engine.run(run)
    assert found.gone
    (answer,) = answers(found, await problems(engine, run=run))
    assert (answer.condition, answer.needs_somebody) == ("cancelled", True)
    assert answer.to_do[-1] == f"labferry run list --equipment {EQUIPMENT} --project 'Cortex Q3 Pilot'"
    (answer,) = answers(await engine.run(run.replace("14-32", "15-00")), [])
    assert answer.to_do == (f"labferry run queue '{run.replace('14-32', '15-00')}'",)


async def test_the_log_of_a_run_that_went_with_its_cleanup_is_not_missed(site: Site) -> None:
    site.lab.settings["nas_cleanup"] = AT_ONCE
    async with running_engine(site) as engine:
        run = site.make_run()
        job_id = (await engine.enqueue(run)).job.job_id
        await until_cleaned(engine, job_id)
        assert await verify(engine, run)
        assert await engine.service.stop() == 0
    assert "run_log_behind" not in site.lab.log_text("sync_engine")


async def _first(engine: Engine, request: problem_service_pb2.QueryProblemsRequest) -> list[finding_pb2.Finding]:
    return [finding async for finding in engine.problems.QueryProblems(request)]


async def test_runs_of_equipment_that_is_configured_no_more_are_told_from_the_log(site: Site) -> None:
    run, waiting = site.make_run(), site.make_run(leaf="Run_2026-04-18T09-00")
    async with running_engine(site) as engine:
        await engine.bring(run)
        site.nas().rename(site.nas().with_name("away"))
        queued = (await engine.enqueue(waiting)).job.job_id
        await engine.until_waiting(queued, job_pb2.WAIT_CONDITION_DESTINATION_UNREACHABLE)
    site.lab.settings["equipment"] = []
    site.equip("STEM_02")
    async with running_engine(site) as engine:
        for one, condition in ((run, "done"), (waiting, "equipment_not_configured")):
            found = await engine.run(one)
            assert [a.condition for a in answers(found, await problems(engine, run=one))] == [condition]
        await problems(engine, equipment_id=EQUIPMENT)
        unknown = problem_service_pb2.QueryProblemsRequest(equipment_id="NOWHERE")
        assert (await refused(_first(engine, unknown)))[1] == "EQUIPMENT_NOT_CONFIGURED"
