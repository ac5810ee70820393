"""Whatever an engine tries to record: what its log took can be replayed, by every read model."""

from __future__ import annotations

import sqlite3

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from labferry.events.v1 import job_events_pb2 as job
from labferry.events.v1 import run_events_pb2 as run
from labferry.events.v1 import staging_events_pb2 as staging
from labferry.sync.v1 import finding_pb2, job_pb2, run_pb2
from libs.event_log.memory_store import MemoryEventStore
from libs.event_log.store import Expected, RevisionConflictError
from services.sync_engine.audits.read_model import CopiesProjection
from services.sync_engine.engine_log import (
    BY_ITSELF,
    Change,
    ContradictionError,
    EngineLog,
    fold_job,
    job_change,
    new_job_change,
    run_change,
    staged_change,
)
from services.sync_engine.event_types import EVENT_TYPES, job_stream
from services.sync_engine.jobs.read_model import JobsProjection
from services.sync_engine.runs.read_model import RunsProjection
from services.sync_engine.staging.read_model import StagingProjection
from services.sync_engine.staging.staged_run import StagedRun

RUN = "E/P/Runs/Run_1"
JOBS = ("a", "b")
NO_TIME = Timestamp(seconds=1 << 60)
FAILED = job_pb2.JobFailure(kind=job_pb2.FAILURE_KIND_NETWORK)

OF_JOBS: list[Message] = [
    *(job.JobQueued(job_id=name, run=RUN, equipment_id="E", destination=name) for name in (*JOBS, "c")),
    *(job.JobStarted(attempt=1), job.JobRequeued(), job.JobFilesLanding(batch_blob="b"), job.JobCopied()),
    *(job.JobVerified(), job.JobVerified(occasion="cleanup"), job.JobVerificationFailed()),
    *(job.JobSealed(sync_status=run_pb2.SYNC_STATUS_SYNCED), job.JobSealed()),
    *(job.JobWaiting(condition=job_pb2.WAIT_CONDITION_GATE), job.JobWaiting()),
    *(job.JobAttemptFailed(failure=FAILED), job.JobAttemptFailed(failure=FAILED, next_attempt_time=NO_TIME)),
    *(job.JobFailed(failure=FAILED), job.JobFailed(), job.JobRearmed(), job.JobPaused(), job.JobResumed()),
    *(job.JobCancelled(), job.JobSwept(), job.JobPriorityChanged(priority=5)),
    *(job.JobCleanupHeld(interlocks=["age"]), job.JobCleanupEligible(), job.JobCleaned()),
]
OF_THE_RUN: list[Message] = [
    *(run.RunSyncStatusChanged(current=run_pb2.SYNC_STATUS_CLEANED), run.RunSyncStatusChanged()),
    *(run.RunOverrideImported(entry_json='{"id": "o"}'), run.RunOverrideImported(entry_json="[]")),
    *(run.RunOverrideImported(entry_json="{"), run.RunOverrideRecorded()),
    run.RunOverrideRecorded(problem_class=finding_pb2.RULE_ORPHAN, expires_at=NO_TIME),
    run.RunOverrideRecorded(problem_class=finding_pb2.RULE_ORPHAN),
    *(run.RunCleanupBegun(ticket_blob="t"), run.RunCleanupEnded(), run.RunAdopted(run=RUN)),
]
OF_STAGING: list[Message] = [
    *(staging.StagingDiscovered(run_kind=run_pb2.RUN_KIND_EXPERIMENTAL), staging.StagingDiscovered()),
    *(
        staging.StagingCompleted(),
        staging.StagingQueued(job_ids=["a"]),
        staging.StagingHeld(),
        staging.StagingCleared(),
    ),
]
MOST = 4


class Tries:
    """An engine that records whatever it is told, decided on what is so now or on what was so when it began."""

    def __init__(self) -> None:
        self.store = MemoryEventStore(service="sync_engine", version="0")
        self.log = EngineLog(self.store)
        self.staged = StagedRun(RUN)

    async def job(self, name: str, stale: bool, payloads: list[Message]) -> None:
        known = None if stale else await self.log.job(name)
        first = payloads[0]
        if known is not None:
            await self.record(job_change(known, *payloads))
        elif isinstance(first, job.JobQueued):
            await self.record(new_job_change(first))
        else:
            await self.record(Change(job_stream(name), Expected.ANY if stale else Expected.NONE, payloads))

    async def run(self, payloads: list[Message]) -> None:
        await self.record(run_change(await self.log.run(RUN), *payloads))

    async def record(self, *changes: Change) -> bool:
        try:
            await self.log.append(BY_ITSELF, *changes)
        except (ContradictionError, RevisionConflictError):
            return False
        return True


async def replay(store: MemoryEventStore) -> None:
    """Every read model from nothing, and every job."""
    models = (JobsProjection(), RunsProjection(), CopiesProjection(), StagingProjection())
    with sqlite3.connect(":memory:") as connection:
        for model in models:
            model.create(connection)
        async for page in store.read():
            for event in page:
                for model in models:
                    model.apply(connection, event, EVENT_TYPES.decode(event))
    for name in (*JOBS, "c"):
        fold_job(await store.read_stream(job_stream(name)))


PROVEN: list[Message] = [job.JobStarted(attempt=1), job.JobCopied(), job.JobVerified()]
GONE: list[Message] = [job.JobCleanupEligible(), job.JobCleaned()]

# A job that never gets far contradicts little.
payloads_of_jobs = st.one_of(
    st.lists(st.sampled_from(OF_JOBS), min_size=1, max_size=MOST),
    st.sampled_from([OF_JOBS[:1], OF_JOBS[1:2], PROVEN, GONE]),
)
payloads_of_the_run = st.lists(st.sampled_from(OF_THE_RUN), min_size=1, max_size=MOST)
attempts = st.one_of(
    st.tuples(st.sampled_from(JOBS), st.booleans(), payloads_of_jobs),
    st.tuples(st.just("run"), st.booleans(), payloads_of_the_run),
    st.tuples(st.just("staged"), st.booleans(), st.lists(st.sampled_from(OF_STAGING), min_size=1, max_size=MOST)),
)


@given(st.lists(attempts, max_size=30))
async def test_whatever_is_accepted_can_be_replayed(tried: list[tuple[str, bool, list[Message]]]) -> None:
    engine = Tries()
    for subject, stale, payloads in tried:
        match subject:
            case "run":
                await engine.run(payloads)
            case "staged":
                await engine.record(staged_change(engine.staged, *payloads))
            case _:
                await engine.job(subject, stale, payloads)
    await replay(engine.store)


async def brought(engine: Tries) -> None:
    for payloads in (
        [job.JobQueued(job_id="a", run=RUN)],
        [job.JobStarted(attempt=1), job.JobCopied(), job.JobVerified()],
        [job.JobCleanupEligible(), job.JobCleaned()],
    ):
        await engine.job("a", False, list[Message](payloads))


async def test_what_contradicts_a_job_is_refused_with_all_that_goes_with_it_and_the_log_goes_on() -> None:
    engine = Tries()
    await brought(engine)
    cleaned, record, head = await engine.log.job("a"), await engine.log.run(RUN), engine.store.head
    assert cleaned is not None and cleaned.state == "cleaned"
    begun = run_change(record, run.RunCleanupBegun(ticket_blob="t"))
    assert not await engine.record(begun, job_change(cleaned, job.JobCleanupEligible()))
    assert engine.store.head == head, "nothing of it was recorded"
    assert await engine.record(begun)
    await replay(engine.store)


async def test_a_job_can_be_told_of_in_no_other_stream_and_never_without_what_it_was_before() -> None:
    engine = Tries()
    await brought(engine)
    assert not await engine.record(Change(job_stream("b"), Expected.NONE, (job.JobQueued(job_id="a"),)))
    assert not await engine.record(Change(job_stream("a"), Expected.ANY, (job.JobQueued(job_id="a"),)))
    await replay(engine.store)
