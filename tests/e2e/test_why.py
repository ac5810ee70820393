"""labferry why: every condition there is, brought about in real services, as GetJob and the command tell it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

import pytest

from cli.json_form import numbers_by_short_name
from cli.why import TO_DO
from labferry.sync.v1 import equipment_service_pb2, finding_pb2, job_pb2, sync_service_pb2
from tests.e2e.terminal import NO, Operator
from tests.faults.sync_engine.test_destinations import mounted_tmpfs
from tests.integration.sync_engine.running_engine import Engine, Site, new_site, running_engine, same_tree
from tests.integration.sync_engine.test_suspected_target import suspect

NUMBERS = numbers_by_short_name(job_pb2.WaitCondition.DESCRIPTOR)
SLOW = {"bandwidth": {"upload_mbps": 16}}


@pytest.fixture
async def slow_site() -> AsyncIterator[Site]:
    """Transfers last long enough to be in work while others wait."""
    async with new_site() as site:
        site.equip(transport=SLOW)
        yield site


async def _held(engine: Engine, job_id: str, condition: str, who: str, detail: str, *, again: bool) -> str:
    """What GetJob and `labferry why` say of a job that waits; the first thing to do that the command names."""
    job = await engine.until_waiting(job_id, NUMBERS[condition])
    (wait,) = job.waiting_on
    assert wait.who_can_clear == who
    assert detail in wait.detail
    assert wait.HasField("next_try_time") is again
    since = wait.since.ToDatetime(tzinfo=UTC)
    assert since <= datetime.now(UTC)
    if again:
        assert wait.next_try_time.ToDatetime(tzinfo=UTC) > since
    operator = Operator(engine.site)
    said = await operator("why", job.run, "-o", "json")
    (answer,) = said.json
    assert (answer["condition"], answer["who_can_clear"], answer["job_id"]) == (condition, who, job_id)
    assert answer["detail"] == wait.detail
    assert answer["since"] == wait.since.ToJsonString()
    assert (answer["next_try_time"] is not None) is again
    assert said.status == (0 if who == "nobody" else NO)
    assert f"{condition} (job {job_id})" in (await operator("why", job.run)).out
    return str(answer["to_do"][0])


async def slot(site: Site) -> None:
    async with running_engine(site) as engine:
        ahead = (await engine.enqueue(site.make_run({"big": os.urandom(24_000_000)}))).job.job_id
        await engine.until_copying(ahead)
        behind = (await engine.enqueue(site.make_run(leaf="Run_2026-04-17T15-00"))).job.job_id
        assert "nothing" in await _held(engine, behind, "slot", "nobody", ahead, again=False)


async def backoff(site: Site) -> None:
    async with running_engine(site) as engine:
        run = site.make_run({f"{n}.h5": os.urandom(5_000_000) for n in range(4)})
        job_id = (await engine.enqueue(run)).job.job_id
        await engine.until_copying(job_id)
        # What the share loses in the middle of a copy, while it answers as if nothing were wrong.
        shutil.rmtree(site.nas() / ".labferry-incoming" / f"{job_id}-1")
        assert "nothing" in await _held(engine, job_id, "backoff", "nobody", "at the destination", again=True)


async def gate(site: Site) -> None:
    async with running_engine(site) as engine:
        await engine.enqueue(site.make_run({"big": os.urandom(3_000_000)}))
        run = site.make_run(leaf="Run_2026-04-17T15-00")
        job_id = (await engine.enqueue(run)).job.job_id
        (site.local(run) / "{{ late }}").write_bytes(b"1")
        assert "rename" in await _held(engine, job_id, "gate", "operator", "leftover_jinja_marker", again=True)
        (answer,) = (await Operator(site)("why", run, "-o", "json")).json
        assert "override add" in answer["to_do"][1]
        assert "leftover_jinja_marker" in answer["to_do"][1]
        # The offending name is gone: nobody says so, and it goes on by itself.
        (site.local(run) / "{{ late }}").rename(site.local(run) / "late")
        await engine.until_sealed(job_id)


async def destination_full(site: Site) -> None:
    with mounted_tmpfs(site.nas(), "size=1m"):
        async with running_engine(site) as engine:
            job_id = (await engine.enqueue(site.make_run({"big": os.urandom(3_000_000)}))).job.job_id
            assert "make room" in await _held(engine, job_id, "destination_full", "it", "", again=True)


async def destination_unreachable(site: Site) -> None:
    site.nas().rmdir()
    async with running_engine(site) as engine:
        job_id = (await engine.enqueue(site.make_run())).job.job_id
        say = await _held(engine, job_id, "destination_unreachable", "it", str(site.nas()), again=True)
        assert say == "labferry equipment show CONFOCAL_01"


async def source_unsettled(site: Site) -> None:
    async with running_engine(site) as engine:
        run = site.make_run({f"{n}.h5": os.urandom(700_000) for n in range(4)})
        job_id = (await engine.enqueue(run)).job.job_id
        await engine.until_copying(job_id)
        with open(site.local(run) / "3.h5", "ab") as file:
            file.write(b"one line more")
        assert "nothing" in await _held(engine, job_id, "source_unsettled", "nobody", "changed", again=True)


async def operator(site: Site) -> None:
    async with running_engine(site) as engine:
        job_id = (await engine.enqueue(site.make_run({"big": os.urandom(6_000_000)}))).job.job_id
        await engine.until_copying(job_id)
        await engine.steer("PauseJob", job_id)
        say = await _held(engine, job_id, "operator", "operator", "paused", again=False)
        assert say == f'labferry job resume {job_id} --reason "WHY"'


async def equipment_not_configured(site: Site) -> None:
    site.equip("SCOPE_02")
    site.nas("SCOPE_02").rmdir()
    run = site.make_run(equipment="SCOPE_02")
    async with running_engine(site) as engine:
        job_id = (await engine.enqueue(run)).job.job_id
    site.lab.settings["equipment"][1] = {
        **site.lab.settings["equipment"][1],
        "transport": None,
        "destinations": [{"name": "elsewhere", "transport": site.lab.settings["equipment"][1]["transport"]}],
    }
    del site.lab.settings["equipment"][1]["transport"]
    async with running_engine(site) as engine:
        say = await _held(engine, job_id, "equipment_not_configured", "it", "'default' of SCOPE_02", again=False)
        assert "labferry.yaml" in say


async def equipment_paused(site: Site) -> None:
    async with running_engine(site) as engine:
        request = equipment_service_pb2.PauseEquipmentRequest(equipment_id="CONFOCAL_01", reason="laser service")
        await engine.equipment.PauseEquipment(request)
        job_id = (await engine.enqueue(site.make_run())).job.job_id
        say = await _held(engine, job_id, "equipment_paused", "operator", "laser service", again=False)
        assert say == 'labferry equipment resume CONFOCAL_01 --reason "WHY"'


CONDITIONS: dict[str, Callable[[Site], Awaitable[None]]] = {
    play.__name__: play
    for play in (
        *(slot, backoff, gate, destination_full, destination_unreachable, source_unsettled, operator),
        *(equipment_not_configured, equipment_paused),
    )
}


ELSEWHERE = {"cleanup_interlock", "secrets_unavailable", "state_disk_full"}
"""Conditions that the tests of cleanup, of encrypted rclone configurations, and of full disks bring about."""


def test_every_condition_has_a_test_and_something_to_do() -> None:
    assert set(CONDITIONS) == set(NUMBERS) - ELSEWHERE
    assert {NUMBERS[condition] for condition in CONDITIONS} <= set(TO_DO)


@pytest.mark.slow
@pytest.mark.parametrize("condition", CONDITIONS)
async def test_a_job_that_waits_says(condition: str, slow_site: Site) -> None:
    await CONDITIONS[condition](slow_site)


async def test_a_proven_job_whose_seal_fails_waits_for_an_operator(slow_site: Site) -> None:
    site = slow_site
    run = site.make_run({"big": os.urandom(3_000_000)})
    async with running_engine(site) as engine:
        job_id = (await engine.enqueue(run)).job.job_id
        await engine.until_copying(job_id)
        # A folder in the place of the file that the seal brings there.
        (site.at_nas(run) / ".exlab-wizard" / "creation.json" / "x").mkdir(parents=True)
        say = await _held(engine, job_id, "operator", "operator", "creation.json", again=True)
        assert "put right" in say
        assert (await engine.job(job_id)).state == job_pb2.JOB_STATE_VERIFIED


async def test_every_verified_file_that_changed_under_an_amendment_can_be_accepted_as_it_says(slow_site: Site) -> None:
    site = slow_site
    names = [f"{n}.tif" for n in range(8)]
    run = site.make_run(dict.fromkeys(names, b"proven"))
    away = site.nas().with_name("away")
    async with running_engine(site) as engine:
        await engine.bring(run)
        (site.local(run) / "late.tif").write_bytes(b"late")
        site.nas().rename(away)
        job_id = (await engine.enqueue(run)).job.job_id
        await engine.until_waiting(job_id, job_pb2.WAIT_CONDITION_DESTINATION_UNREACHABLE)
    for name in names[:-1]:
        (site.local(run) / name).write_bytes(b"changed")
    (site.local(run) / names[-1]).unlink()
    away.rename(site.nas())
    async with running_engine(site) as engine:
        say = await _held(engine, job_id, "gate", "operator", "4.tif (proven as ", again=True)
        assert "put back" in say
        operator = Operator(site)
        (answer,) = (await operator("why", run, "-o", "json")).json
        assert answer["detail"].count("now") == 5
        assert "; and 3 more" in answer["detail"]
        commands = [shlex.split(step.replace("NAME", "asmith")) for step in answer["to_do"][1:]]
        assert [command[4] for command in commands] == names
        for _, *command in commands:
            assert (await operator(*command)).status == 0
        await engine.until_sealed(job_id)
        same_tree(site.local(run), site.at_nas(run))


async def test_a_copy_that_arrives_wrong_says_which_files(slow_site: Site) -> None:
    site = slow_site
    names = [f"{n}.tif" for n in range(8)]
    run = site.make_run(dict.fromkeys(names, b"proven"))
    async with running_engine(site) as engine:
        await engine.bring(run)
        for name in names[2:]:
            (site.at_nas(run) / name).write_bytes(b"rotten")
        # Else the engine mends it at once.
        await Operator(site)("equipment", "pause", "CONFOCAL_01", "--reason", "the NAS is looked at")
        request = sync_service_pb2.VerifyRunRequest(run=run, reason="audit")
        assert [u.report.passed async for u in engine.sync.VerifyRun(request) if u.HasField("report")] == [False]
        said = (await Operator(site)("why", run)).out
        assert "6 differing (2.tif, 3.tif, 4.tif and 3 more)" in said
        assert "it is read again when CONFOCAL_01 is resumed, and what the run here still holds" in said
        assert "- look at the storage; a pass on request that fails is followed by the engine's own" in said


async def test_runs_without_a_job_and_jobs_that_have_ended(slow_site: Site) -> None:
    site = slow_site
    operator = Operator(site)
    run, blocked = site.make_run(), site.make_run({"{{ x }}": b"1"}, leaf="Run_2026-04-17T15-00")
    async with running_engine(site) as engine:

        async def why(of: str) -> tuple[int, str, str, str]:
            said = await operator("why", of, "-o", "json")
            (answer,) = said.json
            return said.status, answer["condition"], answer["who_can_clear"], json.dumps(answer["to_do"])

        status, condition, who, to_do = await why(run)
        assert (status, condition, who) == (NO, "not_queued", "operator")
        assert "labferry run queue" in to_do
        status, condition, who, to_do = await why(blocked)
        assert (status, condition, who) == (NO, "gate", "operator")
        assert "override add" in to_do
        await engine.override(blocked, finding_pb2.RULE_LEFTOVER_JINJA_MARKER)
        assert (await why(blocked))[1] == "not_queued"
        done = await engine.bring(run)
        assert (await why(run))[:3] == (0, "done", "")
        # Refused, and the job says why: until a reading says worse.
        await engine.sync.CleanRun(sync_service_pb2.CleanRunRequest(run=run, reason="disk is full"))
        assert (await why(run))[1] == "cleanup_interlock"
        await operator("equipment", "pause", "CONFOCAL_01", "--reason", "the NAS is looked at")
        shutil.rmtree(site.at_nas(run))
        await engine.sync.VerifyRun(sync_service_pb2.VerifyRunRequest(run=run)).read()
        async for _ in engine.sync.VerifyRun(sync_service_pb2.VerifyRunRequest(run=run)):
            pass
        assert (await why(run))[:3] == (NO, "verification_failed", "it")
        assert "hash_mismatch: read back" in (await operator("job", "list", "--run", run)).out
        assert (await engine.job(done.job_id)).state == job_pb2.JOB_STATE_VERIFIED
        await operator("equipment", "resume", "CONFOCAL_01", "--reason", "it works")
        # Longer in work than any command takes.
        big = site.make_run({"big": bytes(200_000_000)}, leaf="Run_2026-04-17T16-00")
        job_id = (await engine.enqueue(big)).job.job_id
        await engine.until_copying(job_id)
        assert (await why(big))[:3] == (0, "moving", "")
        await engine.steer("CancelJob", job_id)
        assert (await why(big))[:3] == (NO, "cancelled", "operator")


async def test_a_storage_under_suspicion_is_told_with_what_to_type(slow_site: Site) -> None:
    site = slow_site
    operator = Operator(site)
    run, late = site.make_run(), site.make_run(leaf="Run_2026-04-17T15-00")
    async with running_engine(site) as engine:
        await engine.bring(run)
    await suspect(site, run)
    async with running_engine(site) as engine:
        job_id = (await engine.enqueue(late)).job.job_id
        trust = 'labferry equipment trust CONFOCAL_01 default --reason "WHY"'
        say = await _held(engine, job_id, "operator", "operator", "default is under suspicion", again=False)
        assert "look at the storage" in say
        assert f"$ {trust}" in (await operator("why", late)).out
        shown = (await operator("equipment", "show", "CONFOCAL_01")).out
        assert "default (under suspicion)" in shown and f"  {run}/0.tif" in shown and f"$ {trust}" in shown
        shutil.rmtree(site.at_nas(run))
        assert (await operator("run", "verify", run)).status == NO
        why = await operator("why", run)
        assert "who can clear it: operator" in why.out and f"$ {trust}" in why.out
        trusted = await operator("equipment", "trust", "CONFOCAL_01", "default", "--reason", "a cable was replaced")
        assert (trusted.status, "suspicion" in trusted.out) == (0, False)
        await engine.until_sealed(job_id)
