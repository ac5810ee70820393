"""SIGKILL just before and right after every event there is: the next engine brings each job to the right end."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from labferry.events.v1 import event_log_service_pb2
from labferry.sync.v1 import equipment_service_pb2, finding_pb2, job_pb2, run_service_pb2, sync_service_pb2
from services.sync_engine.event_types import EVENT_TYPES
from tests.integration.secrets.running_service import ServiceEndedError
from tests.integration.sync_engine.running_engine import (
    EQUIPMENT,
    PROJECT,
    Engine,
    Site,
    creation_document,
    new_site,
    running_engine,
    same_tree,
    sha256sum_agrees,
    start_engine,
)

FOREIGN = {
    "id": "11111111-1111-4111-8111-111111111111",
    "problem_class": "leftover_jinja_marker",
    "operator": "bjones",
    "recorded_at": "2026-04-17T15:00:00Z",
    "reason": "seen at the microscope",
    "revoked": False,
}
CANCELLED, VERIFIED, PAUSED = job_pb2.JOB_STATE_CANCELLED, job_pb2.JOB_STATE_VERIFIED, job_pb2.JOB_STATE_PAUSED


@dataclass
class Turn:
    """One run that an operator sees to. What is asked is asked again of the next engine, until it has happened."""

    site: Site
    run: str
    files: dict[str, bytes]
    streams: list[str] = field(default_factory=list)

    async def queue(self, engine: Engine, wish: str = "queue") -> job_pb2.Job:
        answer = await engine.enqueue(self.run, request_id=f"{self.run} {wish}")
        assert answer.jobs, answer
        self.streams = [f"job-{j.job_id}" for j in answer.jobs]
        return await engine.job(answer.job.job_id)

    async def steer(self, engine: Engine, method: str, job_id: str, **fields: Any) -> None:
        """A command that an earlier engine has obeyed already, or that comes too late, is refused; that is well."""
        try:
            await engine.steer(method, job_id, **fields)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                raise

    async def until_on_its_way(self, engine: Engine, job_id: str) -> None:
        held = (PAUSED, CANCELLED, VERIFIED)
        await engine.until(job_id, lambda u: u.progress.bytes_done > 0 or u.job.state in held)

    def theirs(self) -> Path:
        return self.site.at_nas(self.run) / "a.tif"


Act = Callable[[Turn, Engine], Awaitable[None]]


@dataclass(frozen=True)
class Boundary:
    """The engine dies at the `count`-th event of this type of a run; `first` it died at another, and `meanwhile`
    something happened."""

    event: str
    count: int = 1
    first: str = ""
    meanwhile: Callable[[Turn], None] = lambda turn: None


@dataclass(frozen=True)
class Play:
    """What an operator and a lab do to a run, and at which events the engine dies of it."""

    act: Act
    boundaries: tuple[Boundary, ...]
    prepare: Callable[[Turn], None] = lambda turn: None
    bandwidth: dict[str, int] = field(default_factory=dict)
    cancelled: bool = False


async def carried(turn: Turn, engine: Engine) -> None:
    await turn.queue(engine)


def rot(turn: Turn) -> None:
    with open(turn.site.at_nas(turn.run) / "a.tif", "r+b") as file:
        file.write(b"rotten")


def put_theirs(turn: Turn) -> None:
    turn.theirs().parent.mkdir(parents=True)
    turn.theirs().write_bytes(b"theirs")


async def retried(turn: Turn, engine: Engine) -> None:
    job = await turn.queue(engine)
    if turn.theirs().exists() and turn.theirs().read_bytes() == b"theirs":
        await engine.until_failed(job.job_id)
        turn.theirs().unlink()
    await turn.steer(engine, "RetryJob", job.job_id)


async def accepted(turn: Turn, engine: Engine) -> None:
    job = await turn.queue(engine)
    await engine.until(job.job_id, lambda u: u.job.state in (job_pb2.JOB_STATE_FAILED, VERIFIED))
    if (await engine.job(job.job_id)).state == job_pb2.JOB_STATE_FAILED:
        old, new = (hashlib.sha256(c).hexdigest() for c in (b"theirs", turn.files["a.tif"]))
        await engine.sync.AcceptChange(
            sync_service_pb2.AcceptChangeRequest(
                run=turn.run,
                path="a.tif",
                old_sha256=old,
                new_sha256=new,
                operator="asmith",
                reason="theirs was a trial",
                request_id=f"{turn.run} accept",
            )
        )


def take_the_nas_away(turn: Turn) -> None:
    if turn.site.nas().exists():
        turn.site.nas().rmdir()


async def awaited(turn: Turn, engine: Engine) -> None:
    job = await turn.queue(engine)
    if not turn.site.nas().exists():
        await engine.until_waiting(job.job_id, job_pb2.WAIT_CONDITION_DESTINATION_UNREACHABLE)


async def steered(turn: Turn, engine: Engine) -> None:
    job = await turn.queue(engine)
    if job.priority != 7:
        await turn.steer(engine, "SetJobPriority", job.job_id, priority=7)
    await turn.until_on_its_way(engine, job.job_id)
    await turn.steer(engine, "PauseJob", job.job_id)
    await turn.steer(engine, "ResumeJob", job.job_id)


async def called_off(turn: Turn, engine: Engine) -> None:
    job = await turn.queue(engine)
    await turn.until_on_its_way(engine, job.job_id)
    await turn.steer(engine, "CancelJob", job.job_id)
    await engine.until_event(f"job-{job.job_id}", "sync.job.swept.v1")


async def held(turn: Turn, engine: Engine) -> None:
    place = {"equipment_id": EQUIPMENT, "reason": "service"}
    await engine.equipment.PauseEquipment(equipment_service_pb2.PauseEquipmentRequest(**place))
    await turn.queue(engine)
    await engine.equipment.ResumeEquipment(equipment_service_pb2.ResumeEquipmentRequest(**place))


async def amended(turn: Turn, engine: Engine) -> None:
    first = await turn.queue(engine)
    if "late.tif" not in turn.files:
        await engine.until_sealed(first.job_id)
        turn.files["late.tif"] = b"late"
        (turn.site.local(turn.run) / "late.tif").write_bytes(b"late")
    await turn.queue(engine, "late")


def leave_a_marker(turn: Turn) -> None:
    turn.files["{{ x }}.txt"] = b"left over"
    (turn.site.local(turn.run) / "{{ x }}.txt").write_bytes(b"left over")


def have_the_wizard_permit(turn: Turn) -> None:
    leave_a_marker(turn)
    turn.site.write_creation(turn.run, creation_document(validation_overrides=[FOREIGN]))


async def permitted(turn: Turn, engine: Engine) -> None:
    jinja = finding_pb2.RULE_LEFTOVER_JINJA_MARKER
    if not await engine.overrides(turn.run):
        await engine.enqueue(turn.run)
    first = await engine.override(turn.run, jinja, request_id=f"{turn.run} first")
    revoke = run_service_pb2.RevokeOverrideRequest(
        run=turn.run, override_id=first.id, operator="asmith", reason="r", request_id=f"{turn.run} revoke"
    )
    await engine.runs.RevokeOverride(revoke)
    await engine.override(turn.run, jinja, request_id=f"{turn.run} second")
    await turn.queue(engine)


async def adopted(turn: Turn, engine: Engine) -> None:
    source = turn.site.local_root / "incoming" / Path(turn.run).name
    if not source.exists():
        source.parent.mkdir(exist_ok=True)
        turn.site.local(turn.run).rename(source)
        # A foreign folder: nothing of a run's cache is in it.
        shutil.rmtree(source / ".exlab-wizard", ignore_errors=True)
    request = sync_service_pb2.AdoptRunRequest(
        source_folder=str(source),
        equipment_id=EQUIPMENT,
        project=PROJECT,
        operator="asmith",
        request_id=f"{turn.run} adopt",
    )
    request.started_time.FromJsonString(f"{turn.run[-16:-6]}T{turn.run[-5:].replace('-', ':')}:00Z")
    adopted_run = await engine.sync.AdoptRun(request)
    assert adopted_run.run == turn.run
    await turn.queue(engine)


SLOW = {"upload_mbps": 12}
"""With files this large a run takes longer than any command, and yet its first bytes come soon."""
PLAYS = {
    "begun": Play(
        carried,
        (
            Boundary("sync.job.queued.v1"),
            Boundary("sync.run.sync_status_changed.v1"),
            Boundary("sync.job.started.v1"),
            Boundary("sync.job.requeued.v1", first="sync.job.started.v1"),
        ),
    ),
    "carried": Play(
        carried,
        (
            Boundary("sync.job.files_landing.v1"),
            Boundary("sync.job.files_landing.v1", count=2),
            Boundary("sync.job.requeued.v1", first="sync.job.files_landing.v1"),
            Boundary("sync.job.copied.v1"),
        ),
    ),
    "proven": Play(
        carried,
        (
            Boundary("sync.job.verification_failed.v1", first="sync.job.copied.v1", meanwhile=rot),
            Boundary("sync.job.attempt_failed.v1", first="sync.job.copied.v1", meanwhile=rot),
            Boundary("sync.job.verified.v1"),
            Boundary("sync.job.sealed.v1"),
        ),
    ),
    "retried": Play(retried, (Boundary("sync.job.failed.v1"), Boundary("sync.job.rearmed.v1")), put_theirs),
    "accepted": Play(accepted, (Boundary("sync.run.change_accepted.v1"),), put_theirs),
    "awaited": Play(awaited, (Boundary("sync.job.waiting.v1"),), take_the_nas_away),
    "steered": Play(
        steered,
        (
            Boundary("sync.job.priority_changed.v1"),
            Boundary("sync.job.paused.v1"),
            Boundary("sync.job.resumed.v1"),
        ),
        bandwidth=SLOW,
    ),
    "called off": Play(
        called_off, (Boundary("sync.job.cancelled.v1"), Boundary("sync.job.swept.v1")), bandwidth=SLOW, cancelled=True
    ),
    "held": Play(held, (Boundary("sync.equipment.paused.v1"), Boundary("sync.equipment.resumed.v1"))),
    "amended": Play(amended, (Boundary("sync.job.queued.v1", count=1, first="sync.job.sealed.v1"),)),
    "permitted": Play(
        permitted,
        (
            Boundary("sync.run.enqueue_blocked.v1"),
            Boundary("sync.run.override_recorded.v1"),
            Boundary("sync.run.override_revoked.v1"),
        ),
        leave_a_marker,
    ),
    "permitted elsewhere": Play(carried, (Boundary("sync.run.override_imported.v1"),), have_the_wizard_permit),
    "adopted": Play(adopted, (Boundary("sync.run.adopted.v1"),)),
}


ELSEWHERE = (
    "sync.job.clean",
    "sync.run.clean",
    "sync.job.files_scrubbed",
    "sync.job.copy_repaired",
    "sync.job.repair_",
    "sync.job.receipt",
    "sync.destination.",
    "sync.staging.",
)
"""What happens after a job is sealed has tests of its own; so have staging, and what is noted of a destination."""


def test_every_event_until_a_job_is_sealed_is_a_boundary() -> None:
    listed = {boundary.event for play in PLAYS.values() for boundary in play.boundaries}
    known = {name for name in EVENT_TYPES.names if name.startswith("sync.") and not name.startswith(ELSEWHERE)}
    assert listed == known


@pytest.mark.slow
@pytest.mark.parametrize("name", PLAYS)
async def test_killed_at(name: str) -> None:
    play = PLAYS[name]
    async with new_site() as site:
        site.equip(max_parallel=16, transport={"bandwidth": play.bandwidth})
        turns = []
        for boundary in play.boundaries:
            for side in ("before", "after"):
                turn = _new_turn(site, len(turns), file_bytes=15_000_000 if play.bandwidth else 5_000_000)
                turns.append(turn)
                play.prepare(turn)
                if boundary.first:
                    await _die(turn, play.act, Boundary(boundary.first), "after")
                    boundary.meanwhile(turn)
                await _die(turn, play.act, boundary, side)
                _nobody_is_left(site)
                if boundary.meanwhile is not rot:
                    _no_damaged_file(turn)
        site.nas().mkdir(exist_ok=True)
        if play.bandwidth:
            engine = await start_engine(site)
            await _act(play, turns, engine)
            await engine.kill()
            await engine.service.resources.aclose()
            site.lab.settings["equipment"].clear()
            site.equip(max_parallel=16)
        async with running_engine(site) as engine:
            if not play.bandwidth:
                await _act(play, turns, engine)
            for turn in turns:
                await _ended_right(turn, engine, cancelled=play.cancelled)
            await _is_consistent(engine)
        _nobody_is_left(site)


async def _act(play: Play, turns: list[Turn], engine: Engine) -> None:
    for turn in turns:
        await play.act(turn, engine)


def _new_turn(site: Site, number: int, *, file_bytes: int) -> Turn:
    # Two files that land one by one, and some that land together.
    files = {"a.tif": os.urandom(file_bytes), "b.tif": os.urandom(file_bytes)}
    files |= {f"small/{n}.csv": os.urandom(500) for n in range(5)}
    run = site.make_run(files, leaf=f"Run_2026-04-17T14-{number:02}")  # type: ignore[arg-type]
    return Turn(site, run, dict(files))


async def _die(turn: Turn, act: Act, boundary: Boundary, side: str) -> None:
    """An engine that dies at the boundary, while the operator does what there is to do."""
    streams = [*turn.streams, f"run-{turn.run}", f"equipment-{EQUIPMENT}"]
    death = {"type": boundary.event, "side": side, "count": boundary.count, "run": turn.run, "streams": streams}
    (turn.site.lab.folder / "death.json").write_text(json.dumps(death), encoding="utf-8")
    try:
        engine = await start_engine(turn.site, module="tests.faults.sync_engine.dying_engine")
    except ServiceEndedError as ended:
        # It may die of what it finds at its start, before it serves.
        assert ended.status == -signal.SIGKILL, ended
        return
    try:
        async with asyncio.TaskGroup() as group:
            doing = group.create_task(_as_far_as_it_lives(turn, act, engine))
            assert await engine.service.ended() == -signal.SIGKILL, boundary
            doing.cancel()
    finally:
        if engine.service.process.returncode is None:
            await engine.kill()
        await engine.service.resources.aclose()


async def _as_far_as_it_lives(turn: Turn, act: Act, engine: Engine) -> None:
    try:
        await act(turn, engine)
    except grpc.aio.AioRpcError as error:
        assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED), error


def _nobody_is_left(site: Site) -> None:
    """No process works in this lab."""
    here = os.fsencode(site.lab.folder)
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            assert here not in (process / "cmdline").read_bytes(), process


def _no_damaged_file(turn: Turn) -> None:
    """Whatever lies under its final name is whole."""
    for name, content in turn.files.items():
        path = turn.site.at_nas(turn.run) / name
        if path.exists():
            assert path.read_bytes() in (content, b"theirs"), path


async def _ended_right(turn: Turn, engine: Engine, *, cancelled: bool) -> None:
    site, run = turn.site, turn.run
    if cancelled:
        (job,) = (await engine.run(run)).jobs
        assert job.state == CANCELLED
        _no_damaged_file(turn)
        again = await engine.enqueue(run)
        assert again.outcome == sync_service_pb2.ENQUEUE_OUTCOME_QUEUED
        assert again.job.job_id != job.job_id
    for job in (await engine.run(run)).jobs:
        if job.state != CANCELLED:
            await engine.until_sealed(job.job_id)
            types = await engine.event_types(f"job-{job.job_id}")
            assert (types.count("sync.job.queued.v1"), types.count("sync.job.sealed.v1")) == (1, 1), types
    same_tree(site.local(run), site.at_nas(run))
    assert sha256sum_agrees(site.at_nas(run)) == len(turn.files)
    await site.until_sync_status(run, "synced")
    in_file = [e["id"] for e in site.creation(run).get("validation_overrides", [])]
    assert in_file == [o.id for o in await engine.overrides(run)]


async def _is_consistent(engine: Engine) -> None:
    # A destination that is looked at just now has a file there for an instant.
    incoming = engine.site.nas() / ".labferry-incoming"
    try:
        async with asyncio.timeout(60):
            while list(incoming.iterdir()):
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(list(incoming.rglob("*"))) from None
    assert (await engine.log.VerifyLog(event_log_service_pb2.VerifyLogRequest())).intact
    rebuilt = await engine.log.RebuildProjections(event_log_service_pb2.RebuildProjectionsRequest(dry_run=True))
    assert not any(p.differences for p in rebuilt.projections)
