"""The demo's seven acts. Each proves what it says, and ends the demo when it can't."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from cli.demo import proof
from cli.demo.calls import Services, health_and_reflection, is_sealed, services, watch_until
from cli.demo.made_run import LEFTOVER_NAME, FileStates, files_of, make_large_run, make_run
from cli.demo.proof import DemoFailedError, require
from cli.demo.stage import EQUIPMENT, LIMS_EMAIL, SLOW_EQUIPMENT, Stage
from cli.json_form import short_name
from cli.output import console, size
from cli.supervisor import START_ORDER, ServiceProcess
from labferry.lims.v1 import lims_service_pb2
from labferry.secrets.v1 import secrets_service_pb2
from labferry.sync.v1 import finding_pb2, job_pb2, run_service_pb2, sync_service_pb2
from libs.service_kit.identity import ServiceName

__all__ = ["DemoFailedError", "play"]

PROJECT = "Cortex Q3 Pilot"
_OPERATOR = "asmith"
_ENOUGH_TO_KILL = 0.4


def say(text: str = "") -> None:
    console.print(text, markup=False, soft_wrap=True)


def act(number: int, title: str) -> None:
    say(f"\n{number}. {title}")


class Troupe:
    """The running services, and the way to kill and restart one of them."""

    def __init__(self, stage: Stage, logs: dict[ServiceName, BinaryIO]) -> None:
        self._stage = stage
        self._logs = logs
        self.running: dict[ServiceName, ServiceProcess] = {}

    async def start(self, service: ServiceName) -> None:
        self.running[service] = await ServiceProcess.start(service, self._stage.config, self._logs[service])

    async def end(self) -> None:
        for service in reversed(START_ORDER):
            if service in self.running:
                await self.running.pop(service).stop()


@asynccontextmanager
async def _troupe(stage: Stage) -> AsyncIterator[Troupe]:
    async with AsyncExitStack() as files:
        logs: dict[ServiceName, BinaryIO] = {s: files.enter_context(stage.open_log(s)) for s in ServiceName}
        troupe = Troupe(stage, logs)
        try:
            yield troupe
        finally:
            await troupe.end()


async def play(folder: Path, own_run: Path | None) -> None:
    """DemoFailedError says which promise was not kept."""
    stage = Stage.make(folder)
    async with _lims(stage) as endpoint, _troupe(stage) as troupe:
        stage.write_configuration(endpoint)
        await _start(stage, troupe)
        async with services(stage) as calls:
            await _list_projects(stage, calls, endpoint)
            run = await _take_run(stage, calls, own_run)
            await _bring_and_prove(stage, calls, run)
            job_id, large_run, before = await _kill(stage, troupe, calls)
        async with services(stage) as calls:
            await _recover(stage, calls, job_id, large_run, before)
            known, creation = await _forget(stage, troupe, calls, run)
        async with services(stage) as calls:
            await _rebuild(stage, calls, run, known, creation)
        _farewell(stage, run)


@asynccontextmanager
async def _lims(stage: Stage) -> AsyncIterator[str]:
    """A LIMS over real HTTP in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli.demo.lims_server", "--email", LIMS_EMAIL),
        *("--password-file", str(stage.password_file), "--projects", "12"),
        stdout=asyncio.subprocess.PIPE,
        stdin=asyncio.subprocess.DEVNULL,
    )
    try:
        if process.stdout is None:
            raise DemoFailedError("the LIMS has no output")
        line = (await process.stdout.readline()).decode().strip()
        require(line.startswith("listening on "), f"the LIMS did not start: {line!r}")
        yield line.removeprefix("listening on ")
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _start(stage: Stage, troupe: Troupe) -> None:
    act(1, "Three services start, as three processes")
    for service in START_ORDER:
        await troupe.start(service)
    async with services(stage) as calls:
        for service in START_ORDER:
            status, names = await health_and_reflection(calls.channels[service])
            require(status == "SERVING", f"{service} is {status}")
            own = [n for n in names if n.startswith("labferry.")]
            require(bool(own), f"{service} names no service by reflection")
            say(f"   {service:<13} {stage.addresses[service]:<16} {status}  {', '.join(own)}")


async def _list_projects(stage: Stage, calls: Services, endpoint: str) -> None:
    act(2, "The gateway lists the LIMS's projects, with a password that only the secrets service knows")
    say(f"   LIMS          {endpoint}")
    await calls.secrets.SetSecret(secrets_service_pb2.SetSecretRequest(username="lims", value=stage.lims_password))
    answer = await calls.lims.ListProjects(lims_service_pb2.ListProjectsRequest())
    require(answer.source == lims_service_pb2.SOURCE_LIVE, f"the answer is not live: {answer.upstream_failure}")
    require(len(answer.projects) == 12, f"{len(answer.projects)} projects instead of 12")
    for project in answer.projects[:3]:
        status = short_name(lims_service_pb2.ProjectStatus.DESCRIPTOR, project.status)
        say(f"   {project.short_id}  {project.name}  ({status})")
    say(f"   … {len(answer.projects)} projects, live")
    require(stage.lims_password not in proof.everything_logged(stage), "the password stands in a log")
    say("   the password is in no log, no event and no configuration")


async def _take_run(stage: Stage, calls: Services, own_run: Path | None) -> str:
    act(3, "A run" if own_run is None else f"A run made from a copy of {own_run}")
    if own_run is None:
        run = make_run(stage.lab, EQUIPMENT, PROJECT, datetime(2026, 4, 17, 14, 32, tzinfo=UTC), _OPERATOR)
    else:
        source = stage.lab / "incoming" / (own_run.name or "run")
        await asyncio.to_thread(shutil.copytree, own_run, source, symlinks=True)
        (source / LEFTOVER_NAME).write_text("left over by a template\n", encoding="utf-8")
        adopted = await calls.sync.AdoptRun(
            sync_service_pb2.AdoptRunRequest(
                source_folder=str(source), equipment_id=EQUIPMENT, project=PROJECT, operator=_OPERATOR
            )
        )
        run = adopted.run
    files = files_of(stage.lab / run)
    say(f"   {run}: {len(files)} files, {size(sum(s for s, _ in files.values()))}")
    return run


async def _bring_and_prove(stage: Stage, calls: Services, run: str) -> None:
    act(4, "It is queued, refused, permitted, copied, read back, verified and sealed")
    before = files_of(stage.lab / run)
    refused = await calls.sync.EnqueueRun(sync_service_pb2.EnqueueRunRequest(run=run))
    require(refused.outcome == sync_service_pb2.ENQUEUE_OUTCOME_BLOCKED, "the gate let a leftover marker through")
    say("   the gate refuses it:")
    for finding in refused.blocking_findings[:5]:
        say(f"     {_rule(finding.rule)}: {finding.offending_path}")
    require(proof.sync_status(stage.lab / run) == "blocked_by_validation", "creation.json doesn't say blocked")
    for rule in sorted({f.rule for f in refused.blocking_findings}):
        override = await calls.runs.RecordOverride(
            run_service_pb2.RecordOverrideRequest(
                run=run, problem_class=rule, operator=_OPERATOR, reason="the name is meant as it is"
            )
        )
        say(f"   override {override.id} by {override.operator}: {_rule(rule)}")
    queued = await calls.sync.EnqueueRun(sync_service_pb2.EnqueueRunRequest(run=run))
    require(queued.outcome == sync_service_pb2.ENQUEUE_OUTCOME_QUEUED, "the run was not queued after the override")
    await _until_sealed(calls, queued.job.job_id)
    at_nas = _at_nas(stage, run)
    for folder in (stage.lab / run, at_nas):
        require(proof.sync_status(folder) == "synced", f"{folder}/.exlab-wizard/creation.json doesn't say synced")
    say("   creation.json says synced, here and at the NAS")
    say(f"   sha256sum -c at the NAS: {await proof.sha256sum(at_nas)} files OK")
    touched = {p for p, s in before.items() if files_of(stage.lab / run).get(p) != s and not proof.is_changing(p)}
    require(not touched, f"files of the source were touched: {touched}")


async def _until_sealed(calls: Services, job_id: str) -> job_pb2.Job:
    update = await watch_until(calls, job_id, is_sealed)
    job = update.job
    state = short_name(job_pb2.JobState.DESCRIPTOR, job.state)
    require(job.state == job_pb2.JOB_STATE_VERIFIED and job.sealed, f"the job is {state}: {job.failure.message}")
    say(f"   {state} and sealed: {job.file_count} files, {size(job.byte_count)}, manifest {job.manifest_sha256[:16]}…")
    return job


async def _kill(stage: Stage, troupe: Troupe, calls: Services) -> tuple[str, str, FileStates]:
    act(5, "The sync engine is killed in the middle of a transfer, and goes on where it was")
    started = datetime(2026, 4, 18, 9, 5, tzinfo=UTC)
    run = await asyncio.to_thread(make_large_run, stage.lab, SLOW_EQUIPMENT, PROJECT, started, _OPERATOR)
    before = files_of(stage.lab / run)
    queued = await calls.sync.EnqueueRun(sync_service_pb2.EnqueueRunRequest(run=run))
    job_id: str = queued.job.job_id

    def is_in_the_middle(update: sync_service_pb2.JobUpdate) -> bool:
        progress = update.progress
        enough = progress.bytes_total and progress.bytes_done > progress.bytes_total * _ENOUGH_TO_KILL
        copying = progress.phase == job_pb2.PROGRESS_PHASE_COPYING
        return bool(copying and enough) or is_sealed(update)

    seen = await watch_until(calls, job_id, is_in_the_middle)
    require(not is_sealed(seen), "the transfer was over before it could be killed")
    await troupe.running[ServiceName.SYNC_ENGINE].kill()
    at_nas = _at_nas(stage, run)
    landed = len(files_of(at_nas)) if at_nas.exists() else 0
    done, total = size(seen.progress.bytes_done), size(seen.progress.bytes_total)
    say(f"   SIGKILL after {done} of {total}; {landed} files had landed")
    await troupe.start(ServiceName.SYNC_ENGINE)
    say("   restarted")
    return job_id, run, before


async def _recover(stage: Stage, calls: Services, job_id: str, run: str, before: FileStates) -> None:
    at_nas = _at_nas(stage, run)
    job = await _until_sealed(calls, job_id)
    require(job.attempt == 2, f"the job needed {job.attempt} attempts instead of 2")
    say(f"   sha256sum -c at the NAS: {await proof.sha256sum(at_nas)} files OK")
    there = files_of(at_nas)
    lost = {p for p in before if p not in there and not p.endswith(b".lock")}
    extra = {p for p in there if p not in before and not proof.is_changing(p)}
    require(not lost and not extra, f"at the NAS: missing {lost}, not from the run {extra}")
    incoming = list((stage.nas / SLOW_EQUIPMENT / ".labferry-incoming").iterdir())
    require(not incoming, f"left over at the NAS: {incoming}")
    jobs = await calls.sync.ListJobs(sync_service_pb2.ListJobsRequest(run=run))
    require(len(jobs.jobs) == 1, f"{len(jobs.jobs)} jobs for one run")
    say("   nothing lost, nothing twice, nothing left over")


def _at_nas(stage: Stage, run: str) -> Path:
    equipment, _, below = run.partition("/")
    return stage.nas / equipment / below


async def _forget(stage: Stage, troupe: Troupe, calls: Services, run: str) -> tuple[dict[str, Any], dict[str, Any]]:
    act(6, "The read models are deleted, and rebuilt from the log alone")
    known = await proof.everything_known(calls, run)
    creation = proof.creation(stage.lab / run)
    await troupe.running[ServiceName.SYNC_ENGINE].stop()
    removed = proof.delete_read_models(stage)
    proof.drop_overrides(stage.lab / run)
    say(f"   deleted {', '.join(removed)}, and the overrides in creation.json")
    await troupe.start(ServiceName.SYNC_ENGINE)
    return known, creation


async def _rebuild(stage: Stage, calls: Services, run: str, known: dict[str, Any], creation: dict[str, Any]) -> None:
    require(await proof.everything_known(calls, run) == known, "jobs, runs or overrides differ after the rebuild")
    await proof.until_equal(stage.lab / run, creation)
    say("   jobs, runs and overrides are the same; creation.json is the same again")
    say(f"   rebuilt beside the running one: {await proof.rebuild_differences(calls)} differences")
    verified = await proof.verify_log(calls)
    require(verified.intact, f"the log is broken at {verified.first_bad_position}: {verified.reason}")
    say(f"   the log's hash chain is intact: {verified.events_checked} events, head {verified.head_hash[:16]}…")


def _farewell(stage: Stage, run: str) -> None:
    act(7, "Try it yourself")
    token = stage.state / "operator.token"
    engine = stage.addresses[ServiceName.SYNC_ENGINE]
    say(f"   make up CONFIG={stage.config}        starts the services again, at")
    for service in START_ORDER:
        say(f"     {service:<13} {stage.addresses[service]}")
    say("   and then, with gRPC:")
    grpcurl = f'grpcurl -plaintext -H "authorization: Bearer $(cat {token})"'
    say(f"     {grpcurl} {engine} list")
    say(f'     {grpcurl} -d \'{{"run": "{run}"}}\' {engine} labferry.sync.v1.RunService/GetRun')
    say("   or on the command line:")
    say(f"     export LABFERRY_CONFIG={stage.config}")
    say(f'     .venv/bin/labferry run verify "{run}"')
    say("     .venv/bin/labferry job list")
    say("     .venv/bin/labferry events --follow")
    say("\nDone: every step above was checked.")


def _rule(number: int) -> str:
    return short_name(finding_pb2.Rule.DESCRIPTOR, number)
