"""As of any earlier position or time, the engine answers what it answered then."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from labferry.events.v1 import event_log_service_pb2 as log_pb
from labferry.events.v1 import event_pb2
from labferry.sync.v1 import finding_pb2, job_pb2, run_pb2, run_service_pb2, sync_service_pb2
from tests.integration.sync_engine.running_engine import Engine, Site

ACTIONS = 30
TRIES = 20
REFUSED = (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.ABORTED)


@dataclass
class Answers:
    """What was answered at one position of the log, of everything known then."""

    jobs: Mapping[str, job_pb2.Job]
    runs: Mapping[str, run_pb2.Run]
    overrides: Mapping[str, run_service_pb2.ListOverridesResponse]


@dataclass
class History:
    """A random history of one engine, and the answers on the way."""

    engine: Engine
    runs: Sequence[str]
    chance: random.Random
    jobs: list[str] = field(default_factory=list)
    overrides: list[tuple[str, str]] = field(default_factory=list)
    answers: dict[int, Answers] = field(default_factory=dict)

    async def act(self) -> None:
        """One step of an operator. What the present state doesn't allow is refused, which is a step too."""
        actions: list[Callable[[], Awaitable[Any]]] = [self._enqueue, self._record, self._revoke, self._steer]
        try:
            await self.chance.choice(actions)()
        except grpc.aio.AioRpcError as error:
            assert error.code() in REFUSED, error

    async def _enqueue(self) -> None:
        answer = await self.engine.enqueue(self.chance.choice(self.runs))
        self.jobs += [job.job_id for job in answer.jobs if job.job_id not in self.jobs]

    async def _record(self) -> None:
        rules = (finding_pb2.RULE_LEFTOVER_JINJA_MARKER, finding_pb2.RULE_UNRESOLVED_PLACEHOLDER_TOKEN)
        run = self.chance.choice(self.runs)
        self.overrides.append((run, (await self.engine.override(run, self.chance.choice(rules))).id))

    async def _revoke(self) -> None:
        if self.overrides:
            run, override_id = self.chance.choice(self.overrides)
            request = run_service_pb2.RevokeOverrideRequest(
                run=run, override_id=override_id, operator="asmith", reason="no longer"
            )
            await self.engine.runs.RevokeOverride(request)

    async def _steer(self) -> None:
        if not self.jobs:
            return
        stub, job = self.engine.sync, {"job_id": self.chance.choice(self.jobs), "reason": "by chance"}
        priority = self.chance.randrange(-5, 5)
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: stub.PauseJob(sync_service_pb2.PauseJobRequest(**job)),
            lambda: stub.ResumeJob(sync_service_pb2.ResumeJobRequest(**job)),
            lambda: stub.CancelJob(sync_service_pb2.CancelJobRequest(**job)),
            lambda: stub.RetryJob(sync_service_pb2.RetryJobRequest(**job)),
            lambda: stub.SetJobPriority(sync_service_pb2.SetJobPriorityRequest(priority=priority, **job)),
        ]
        await self.chance.choice(calls)()

    async def note(self) -> None:
        """Keeps what is answered at a position of the log: asked again when something was recorded meanwhile."""
        position = await self.head()
        for _ in range(TRIES):
            answers = await self.ask(None)
            before, position = position, await self.head()
            if position == before:
                self.answers[position] = answers
                return

    async def head(self) -> int:
        return int((await self.engine.log.GetServerInfo(log_pb.GetServerInfoRequest())).head_position)

    async def ask(self, as_of: run_pb2.AsOf | None) -> Answers:
        jobs = {}
        for job_id in self.jobs:
            try:
                job = await self.engine.sync.GetJob(sync_service_pb2.GetJobRequest(job_id=job_id, as_of=as_of))
            except grpc.aio.AioRpcError as error:
                assert error.code() == grpc.StatusCode.NOT_FOUND
                continue
            jobs[job_id] = said_by_the_log(job)
        runs = {r: await self.engine.runs.GetRun(run_service_pb2.GetRunRequest(run=r, as_of=as_of)) for r in self.runs}
        for run in runs.values():
            # The file may be behind the log, and holds more than the log does.
            run.ClearField("creation")
            run.ClearField("foreign_sync_status")
            for job in run.jobs:
                said_by_the_log(job)
        overrides = {
            run: await self.engine.runs.ListOverrides(run_service_pb2.ListOverridesRequest(run=run, as_of=as_of))
            for run in self.runs
        }
        return Answers(jobs, runs, overrides)


def said_by_the_log(job: job_pb2.Job) -> job_pb2.Job:
    """Without what only the engine of that moment knew: what else kept the job waiting."""
    job.ClearField("waiting_on")
    return job


def last_at(events: Sequence[event_pb2.Event], moment: event_pb2.Event) -> int:
    """Position of the last event recorded at or before another's time."""
    at = moment.recorded_time.ToNanoseconds()
    return max(event.position for event in events if event.recorded_time.ToNanoseconds() <= at)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
async def test_every_earlier_answer_is_given_again(site: Site, engine: Engine, seed: int) -> None:
    runs = [
        site.make_run({"a.tif": bytes(50_000), **problem}, leaf=f"Run_2026-04-17T14-3{number}")
        for number, problem in enumerate(({}, {}, {"{{ b }}.txt": b"b"}))
    ]
    history = History(engine, runs, random.Random(seed))
    for _ in range(ACTIONS):
        await history.act()
        await history.note()
    # What is refused or changes nothing has the position of the step before.
    assert len(history.answers) > ACTIONS // 2
    assert history.jobs
    for position, then in history.answers.items():
        now = await history.ask(run_pb2.AsOf(position=position))
        assert now == then, f"as of position {position}"
    events = await engine.events()
    for event in events[:: len(events) // 40 + 1]:
        by_time = await history.ask(run_pb2.AsOf(time=event.recorded_time))
        by_position = await history.ask(run_pb2.AsOf(position=last_at(events, event)))
        assert (by_time.jobs, by_time.runs) == (by_position.jobs, by_position.runs), f"as of event {event.position}"
