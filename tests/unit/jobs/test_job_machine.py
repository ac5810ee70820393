"""The job against a model of it, written from the specification alone: random commands, failures and crashes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from google.protobuf.message import Message
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from labferry.events.v1 import job_events_pb2 as events
from labferry.sync.v1 import job_pb2, run_pb2
from services.sync_engine.jobs.commands import JobCommand, decide, decide_start
from services.sync_engine.jobs.failure import Failure
from services.sync_engine.jobs.job import Job, JobStateError, WaitCondition
from services.sync_engine.jobs.job_history import JobHistoryError, evolve
from services.sync_engine.jobs.retry import after_failure, remaining, unreachable, waiting
from services.sync_engine.jobs.waiting import recorded_waits
from services.sync_engine.transfer.transport import FailureKind

BEGIN = datetime(2026, 4, 17, 14, 32, tzinfo=UTC)
SCHEDULE = (30, 120, 480, 1800, 7200)
"""Seconds after the first, second, … network-like failure; the next one ends the job."""

TOOL_SCHEDULE = (30, 120)
"""Likewise after a tool ended in a way that seldom mends by itself."""

AT_ONCE = (FailureKind.AUTHENTICATION, FailureKind.CONFIGURATION, FailureKind.LOCAL_FILE_VANISHED)
PASSING = {
    FailureKind.DESTINATION_FULL: "destination_full",
    FailureKind.SOURCE_CHANGED: "source_unsettled",
    FailureKind.SECRET_UNAVAILABLE: "secrets_unavailable",
}
MOVING = ("queued", "running", "awaiting_verify")
COMMANDS: dict[str, tuple[str, ...]] = {
    "retry": ("failed",),
    "pause": MOVING,
    "resume": ("paused",),
    "cancel": (*MOVING, "paused", "failed"),
    "set_priority": (*MOVING, "paused", "verified"),
}
"""In which states an operator may do what."""

EVENTS: list[tuple[Message, tuple[str, ...]]] = [
    (events.JobQueued(job_id="j"), ()),
    (events.JobStarted(attempt=1), ("queued",)),
    (events.JobRequeued(), ("running",)),
    (events.JobFilesLanding(), ("running",)),
    (events.JobCopied(), ("running",)),
    (events.JobVerified(), ("awaiting_verify", "verified")),
    (events.JobVerificationFailed(), ("awaiting_verify", "verified")),
    (events.JobSealed(sync_status=run_pb2.SYNC_STATUS_SYNCED), ("verified",)),
    (events.JobWaiting(condition=job_pb2.WAIT_CONDITION_GATE), (*MOVING, "verified")),
    (events.JobAttemptFailed(failure=job_pb2.JobFailure(kind=job_pb2.FAILURE_KIND_NETWORK)), MOVING),
    (events.JobFailed(failure=job_pb2.JobFailure(kind=job_pb2.FAILURE_KIND_NETWORK)), MOVING),
    (events.JobRearmed(), ("failed",)),
    (events.JobPaused(), MOVING),
    (events.JobResumed(), ("paused",)),
    (events.JobCancelled(), (*MOVING, "paused", "failed")),
    (events.JobSwept(), ("cancelled",)),
    (events.JobPriorityChanged(), (*MOVING, "paused", "verified")),
]
"""After which states each event may follow; after any other it contradicts the history."""


@dataclass
class Model:
    """What the specification says of a job, and no more."""

    state: str = "queued"
    resumes_as: str = ""
    attempts: int = 0
    network: int = 0
    tool: int = 0
    mismatches: int = 0
    priority: int = 0
    sealed: bool = False
    waits_on: str = ""
    pause: float = 0.0

    def stops_waiting(self) -> None:
        self.waits_on, self.pause = "", 0.0


class JobMachine(RuleBasedStateMachine):
    """Each rule does the same to the job, by its events, and to the model."""

    def __init__(self) -> None:
        super().__init__()
        self.now = BEGIN
        self.model = Model()
        self.history: list[tuple[Message, datetime]] = []
        self.job: Job = self._append(events.JobQueued(job_id="j", run="E/P/Runs/Run_1", equipment_id="E"))

    def _append(self, event: Message) -> Job:
        before = self.job if self.history else None
        self.job = evolve(before, event, self.now)
        self.history.append((event, self.now))
        return self.job

    def _fails(self, kind: FailureKind, jitter: float) -> None:
        self._append(after_failure(self.job, Failure(kind, "its own words"), self.now, jitter))

    @rule(seconds=st.integers(-10_000, 10_000))
    def the_clock_moves(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule()
    def its_turn_comes(self) -> None:
        if self.model.state != "queued":
            with pytest.raises(JobStateError, match=f"{self.model.state}; start"):
                decide_start(self.job, "engine")
            return
        self._append(decide_start(self.job, "engine"))
        self.model.state = "running"
        self.model.attempts += 1
        self.model.stops_waiting()

    @precondition(lambda self: self.model.state == "running")
    @rule()
    def files_land(self) -> None:
        self._append(events.JobFilesLanding(batch_blob=f"{len(self.history)}"))

    @precondition(lambda self: self.model.state == "running")
    @rule()
    def everything_is_there(self) -> None:
        self._append(events.JobCopied(manifest_blob="m", files_blob="f", file_count=3, byte_count=9))
        self.model.state = "awaiting_verify"

    @precondition(lambda self: self.model.state in ("awaiting_verify", "verified"))
    @rule()
    def it_is_read_back_and_matches(self) -> None:
        self._append(events.JobVerified(expected=3, hashed=3, matched=3))
        self.model.state = "verified"
        self.model.stops_waiting()

    @precondition(lambda self: self.model.state == "awaiting_verify")
    @rule(jitter=st.floats(-1, 1))
    def it_is_read_back_and_differs(self, jitter: float) -> None:
        self._append(events.JobVerificationFailed())
        self._fails(FailureKind.HASH_MISMATCH, jitter)
        self.model.mismatches += 1
        self.model.stops_waiting()
        # Transferred again once, then it fails.
        self.model.state = "queued" if self.model.mismatches == 1 else "failed"
        if self.model.state == "queued":
            self.model.waits_on = "backoff"

    @precondition(lambda self: self.model.state == "running")
    @rule(jitter=st.floats(-1, 1))
    def its_tool_finds_that_it_arrived_as_something_else(self, jitter: float) -> None:
        self._fails(FailureKind.HASH_MISMATCH, jitter)
        self.model.stops_waiting()
        if self.model.mismatches == 0:
            self.model.mismatches += 1
            self.model.state, self.model.waits_on = "queued", "backoff"
        else:
            self.model.state = "failed"

    @precondition(lambda self: self.model.state == "verified")
    @rule()
    def it_is_read_back_later_and_rotted(self) -> None:
        self._append(events.JobVerificationFailed())
        assert self.job.verify_passes == 0

    @precondition(lambda self: self.model.state == "verified")
    @rule()
    def it_is_sealed(self) -> None:
        self._append(events.JobSealed(sync_status=run_pb2.SYNC_STATUS_SYNCED))
        self.model.sealed = True
        self.model.stops_waiting()

    @precondition(lambda self: self.model.state in MOVING)
    @rule(jitter=st.floats(-1, 1))
    def the_network_fails(self, jitter: float) -> None:
        self._fails(FailureKind.NETWORK, jitter)
        self._after(SCHEDULE[self.model.network :])
        self.model.network += self.model.state == "queued"

    @precondition(lambda self: self.model.state in MOVING)
    @rule(jitter=st.floats(-1, 1))
    def its_tool_breaks(self, jitter: float) -> None:
        self._fails(FailureKind.TOOL_FAILED, jitter)
        self._after(TOOL_SCHEDULE[self.model.tool :])
        self.model.tool += self.model.state == "queued"

    def _after(self, pauses_left: Sequence[int]) -> None:
        self.model.stops_waiting()
        self.model.state = "queued" if pauses_left else "failed"
        if pauses_left:
            self.model.waits_on, self.model.pause = "backoff", float(pauses_left[0])

    @precondition(lambda self: self.model.state in MOVING)
    @rule(kind=st.sampled_from(AT_ONCE))
    def what_trying_again_does_not_mend(self, kind: FailureKind) -> None:
        self._fails(kind, 0.0)
        self.model.state = "failed"
        self.model.stops_waiting()

    @precondition(lambda self: self.model.state in MOVING)
    @rule(kind=st.sampled_from(sorted(PASSING)))
    def what_passes_by_itself(self, kind: FailureKind) -> None:
        self._fails(kind, 0.0)
        self._waits(PASSING[kind], 600.0)

    @precondition(lambda self: self.model.state in MOVING)
    @rule()
    def the_destination_fails_its_probe(self) -> None:
        self._append(unreachable(Failure(FailureKind.NETWORK, "no answer")))
        self._waits("destination_unreachable", 0.0)

    @precondition(lambda self: self.model.state in MOVING)
    @rule()
    def the_gate_closes(self) -> None:
        self._append(waiting(WaitCondition.GATE, "an override ended", self.now, self.now + timedelta(seconds=30)))
        self._waits("gate", 30.0)

    def _waits(self, condition: str, most_seconds: float) -> None:
        self.model.state = "queued" if self.model.state == "running" else self.model.state
        self.model.waits_on, self.model.pause = condition, most_seconds

    @precondition(lambda self: self.model.state == "cancelled")
    @rule()
    def its_temporary_files_are_removed(self) -> None:
        self._append(events.JobSwept())
        assert self.job.swept

    @rule()
    def the_engine_dies_and_starts_again(self) -> None:
        if self.model.state == "running":
            self._append(events.JobRequeued(cause="engine_restarted"))
            self.model.state = "queued"

    @rule(name=st.sampled_from(sorted(COMMANDS)), priority=st.integers(-1000, 1000))
    def an_operator_commands(self, name: str, priority: int) -> None:
        model, command = self.model, JobCommand(name)
        if model.state not in COMMANDS[name]:
            with pytest.raises(JobStateError, match=f"{model.state}; {name}"):
                decide(self.job, command, priority)
            return
        for event in decide(self.job, command, priority):
            self._append(event)
        match name:
            case "retry":
                model.state, model.network, model.tool, model.mismatches = "queued", 0, 0, 0
            case "pause":
                model.resumes_as = "queued" if model.state == "running" else model.state
                model.state = "paused"
            case "resume":
                model.state = model.resumes_as
            case "cancel":
                model.state = "cancelled"
                model.stops_waiting()
            case _:
                model.priority = priority

    @invariant()
    def it_is_what_the_model_says(self) -> None:
        job, model = self.job, self.model
        assert (job.state.value, job.attempt, job.priority, job.sealed) == (
            *(model.state, model.attempts, model.priority, model.sealed),
        )
        assert (job.network_failures, job.tool_failures) == (model.network, model.tool)
        assert job.mismatches == model.mismatches
        assert job.revision == len(self.history) - 1
        assert (job.failure is not None) or model.state != "failed"

    @invariant()
    def it_says_what_it_waits_on(self) -> None:
        said = [w.condition.value for w in recorded_waits(self.job)]
        if self.model.state == "paused":
            assert said == ["operator"]
        elif self.model.state in MOVING:
            assert said == ([self.model.waits_on] if self.model.waits_on else [])

    @invariant()
    def no_clock_makes_it_wait_longer_than_the_pause(self) -> None:
        if self.model.state in MOVING:
            assert 0 <= remaining(self.job, self.now) <= self.model.pause * 1.1 + 1e-6

    @invariant()
    def what_contradicts_the_history_is_refused_by_name(self) -> None:
        for event, states in EVENTS:
            if self.job.state.value in states:
                continue
            with pytest.raises(JobHistoryError, match=f"{type(event).__name__} .*{self.model.state}"):
                evolve(self.job, event, self.now)

    @invariant()
    def the_history_makes_the_same_job_again(self) -> None:
        again: Job | None = None
        for event, at in self.history:
            again = evolve(again, event, at)
        assert again == self.job
        assert msgspec.json.decode(msgspec.json.encode(self.job), type=Job) == self.job


TestJob = JobMachine.TestCase
TestJob.settings = settings(max_examples=60, stateful_step_count=40)


def test_the_model_knows_every_command() -> None:
    assert {c.value for c in JobCommand} == set(COMMANDS)
