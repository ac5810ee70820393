"""The job as a state machine: each transition, each illegal event refused, and any history replayed the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from labferry.events.v1 import job_events_pb2 as events
from labferry.sync.v1 import job_pb2, run_pb2, sync_service_pb2
from libs.run_tree.creation_record import SyncStatus
from services.sync_engine.jobs.commands import JobCommand, decide, decide_start
from services.sync_engine.jobs.failure import Failure, failure_message
from services.sync_engine.jobs.job import Job, JobState, JobStateError, WaitCondition
from services.sync_engine.jobs.job_history import JobHistoryError, evolve
from services.sync_engine.jobs.retry import BACKOFF, after_failure, probe_pause, remaining, waiting
from services.sync_engine.transfer.transport import FailureKind
from services.sync_engine.validation.finding import Rule
from services.sync_engine.validation.job_findings import findings_of_job

NOW = datetime(2026, 4, 17, 14, 32, tzinfo=UTC)
QUEUED = events.JobQueued(job_id="j", run="E/P/Runs/Run_1", equipment_id="E", destination="default")
STARTED = events.JobStarted(attempt=1)
LANDING = events.JobFilesLanding(attempt=1, batch_blob="b")
COPIED = events.JobCopied(attempt=1, manifest_blob="m", files_blob="f", file_count=2, byte_count=3)
VERIFIED = events.JobVerified(expected=2, hashed=2, matched=2)
MISMATCH = events.JobVerificationFailed()
SYNCED = run_pb2.SYNC_STATUS_SYNCED
SEALED = events.JobSealed(sync_status=SYNCED)
FAILED = events.JobFailed(failure=job_pb2.JobFailure(kind=job_pb2.FAILURE_KIND_CONFIGURATION, message="no"))
REQUEUED = events.JobRequeued(cause="engine_restarted")
REARMED = events.JobRearmed(command="retry")
AT_GATE = events.JobWaiting(condition=job_pb2.WAIT_CONDITION_GATE, detail="closed")
ALL: tuple[Message, ...] = (
    *(STARTED, LANDING, COPIED, VERIFIED, MISMATCH, SEALED, FAILED, REQUEUED, REARMED, AT_GATE),
    events.JobAttemptFailed(failure=job_pb2.JobFailure(kind=job_pb2.FAILURE_KIND_NETWORK, message="gone")),
)


def _fold(*history: Message) -> Job:
    job: Job | None = None
    for event in history:
        job = evolve(job, event, NOW)
    assert job is not None
    return job


def test_the_straight_way() -> None:
    steps = (QUEUED, STARTED, LANDING, COPIED, VERIFIED, SEALED)
    states = [_fold(*steps[: n + 1]).state for n in range(len(steps))]
    assert [s.value for s in states] == ["queued", "running", "running", "awaiting_verify", "verified", "verified"]
    job = _fold(*steps)
    assert (job.sealed, job.verify_passes, job.file_count, job.revision) == (True, 1, 2, 5)


@pytest.mark.parametrize(
    ("history", "event"),
    [
        ((QUEUED,), COPIED),
        ((QUEUED,), VERIFIED),
        ((QUEUED,), SEALED),
        ((QUEUED,), REARMED),
        ((QUEUED, STARTED), STARTED),
        ((QUEUED, STARTED), VERIFIED),
        ((QUEUED, STARTED, COPIED), SEALED),
        ((QUEUED, STARTED, COPIED, VERIFIED), FAILED),
        ((QUEUED, STARTED, COPIED, VERIFIED), STARTED),
        ((QUEUED, FAILED), STARTED),
        ((QUEUED,), QUEUED),
    ],
)
def test_what_can_not_follow_is_refused(history: tuple[Message, ...], event: Message) -> None:
    with pytest.raises(JobHistoryError):
        evolve(_fold(*history), event, NOW)


def test_no_event_comes_before_the_first() -> None:
    with pytest.raises(JobHistoryError):
        evolve(None, STARTED, NOW)


@given(st.lists(st.sampled_from(ALL), max_size=12))
def test_any_history_either_folds_or_is_refused_and_what_is_proven_stays_proven(history: list[Message]) -> None:
    job = _fold(QUEUED)
    for event in history:
        before = job
        try:
            job = evolve(job, event, NOW)
        except JobHistoryError:
            continue
        assert job.revision == before.revision + 1
        assert not (before.state is JobState.VERIFIED and job.state is not JobState.VERIFIED)
        assert not (job.sealed and job.state is not JobState.VERIFIED)
        assert msgspec.json.decode(msgspec.json.encode(job), type=Job) == job


def test_a_wait_keeps_its_beginning_while_it_stays_the_same() -> None:
    job = evolve(_fold(QUEUED), AT_GATE, NOW)
    later = evolve(job, AT_GATE, NOW + timedelta(minutes=5))
    assert later.wait is not None
    assert later.wait.since == NOW
    other = evolve(later, waiting(WaitCondition.DESTINATION_FULL, "full", NOW, None), NOW + timedelta(minutes=6))
    assert other.wait is not None
    assert other.wait.since == NOW + timedelta(minutes=6)


def test_retry_is_for_failed_jobs_alone() -> None:
    assert decide(_fold(QUEUED, FAILED), JobCommand.RETRY) == (REARMED,)
    for history in ((QUEUED,), (QUEUED, STARTED), (QUEUED, STARTED, COPIED, VERIFIED)):
        with pytest.raises(JobStateError) as refused:
            decide(_fold(*history), JobCommand.RETRY)
        assert refused.value.job.state.value in str(refused.value)


def test_attempts_are_counted_over_the_whole_life_and_the_schedule_begins_anew() -> None:
    network = Failure(FailureKind.NETWORK, "gone")
    job = _fold(QUEUED, STARTED)
    for _ in range(3):
        job = evolve(job, after_failure(job, network, NOW, 0.0), NOW)
        job = evolve(job, decide_start(job, "engine"), NOW)
    assert (job.attempt, job.network_failures) == (4, 3)
    job = evolve(evolve(job, FAILED, NOW), REARMED, NOW)
    assert (job.attempt, job.network_failures, job.failure) == (4, 0, None)


@given(st.floats(-1, 1))
def test_network_failures_wait_as_specified_and_then_fail(jitter: float) -> None:
    job = _fold(QUEUED, STARTED)
    failure = Failure(FailureKind.NETWORK, "gone")
    for pause in BACKOFF:
        job = evolve(job, after_failure(job, failure, NOW, jitter), NOW)
        assert job.state is JobState.QUEUED
        assert job.next_attempt is not None
        assert abs((job.next_attempt - NOW) / pause - 1) <= 0.1 + 1e-6
        job = evolve(job, decide_start(job, "engine"), NOW)
    assert [p.total_seconds() for p in BACKOFF] == [30, 120, 480, 1800, 7200]
    assert evolve(job, after_failure(job, failure, NOW, jitter), NOW).state is JobState.FAILED


@given(st.floats(-1, 1), st.integers(0, 5))
def test_a_tool_that_breaks_is_tried_twice_more_whatever_the_network_did_before(jitter: float, cuts: int) -> None:
    job = _fold(QUEUED, STARTED)
    for _ in range(cuts):
        job = evolve(job, after_failure(job, Failure(FailureKind.NETWORK, "gone"), NOW, 0.0), NOW)
        job = evolve(job, decide_start(job, "engine"), NOW)
    failure = Failure(FailureKind.TOOL_FAILED, "sending (exit status 22): out of memory")
    for pause in (30, 120):
        job = evolve(job, after_failure(job, failure, NOW, jitter), NOW)
        assert job.state is JobState.QUEUED
        assert job.next_attempt is not None
        assert abs((job.next_attempt - NOW).total_seconds() / pause - 1) <= 0.1 + 1e-6
        job = evolve(job, decide_start(job, "engine"), NOW)
    ended = evolve(job, after_failure(job, failure, NOW, jitter), NOW)
    assert (ended.state, ended.failure) == (JobState.FAILED, failure)
    again = evolve(ended, REARMED, NOW)
    assert (again.tool_failures, again.network_failures) == (0, 0)


@pytest.mark.parametrize(
    "kind", [FailureKind.AUTHENTICATION, FailureKind.CONFIGURATION, FailureKind.LOCAL_FILE_VANISHED]
)
def test_what_trying_again_can_not_mend_fails_at_once(kind: FailureKind) -> None:
    job = _fold(QUEUED, STARTED)
    failure = Failure(kind, "its own words", ("a", "b"))
    ended = evolve(job, after_failure(job, failure, NOW, 0.0), NOW)
    assert (ended.state, ended.failure) == (JobState.FAILED, failure)


@pytest.mark.parametrize(
    ("kind", "condition"),
    [
        (FailureKind.DESTINATION_FULL, WaitCondition.DESTINATION_FULL),
        (FailureKind.SOURCE_CHANGED, WaitCondition.SOURCE_UNSETTLED),
        (FailureKind.SECRET_UNAVAILABLE, WaitCondition.SECRETS_UNAVAILABLE),
    ],
)
def test_what_passes_by_itself_is_waited_for_for_ever(kind: FailureKind, condition: WaitCondition) -> None:
    job = _fold(QUEUED, STARTED)
    for _ in range(50):
        job = evolve(job, after_failure(job, Failure(kind, "words"), NOW, 0.0), NOW)
        assert job.state is JobState.QUEUED
        assert job.wait is not None
        assert job.wait.condition is condition
        job = evolve(job, decide_start(job, "engine"), NOW)
    assert job.network_failures == 0


def test_a_mismatch_is_copied_once_more_and_then_fails() -> None:
    failure = Failure(FailureKind.HASH_MISMATCH, "differs")
    job = _fold(QUEUED, STARTED, COPIED, MISMATCH)
    job = evolve(job, after_failure(job, failure, NOW, 0.0), NOW)
    assert (job.state, job.next_attempt) == (JobState.QUEUED, NOW)
    job = evolve(evolve(evolve(job, decide_start(job, "e"), NOW), COPIED, NOW), MISMATCH, NOW)
    assert evolve(job, after_failure(job, failure, NOW, 0.0), NOW).state is JobState.FAILED


def test_a_mismatch_that_the_tool_notices_itself_is_copied_once_more_and_then_fails() -> None:
    failure = Failure(FailureKind.HASH_MISMATCH, "corrupted on transfer: sizes differ")
    job = _fold(QUEUED, STARTED)
    job = evolve(job, after_failure(job, failure, NOW, 0.0), NOW)
    assert job.state is JobState.QUEUED
    job = evolve(job, decide_start(job, "e"), NOW)
    assert evolve(job, after_failure(job, failure, NOW, 0.0), NOW).state is JobState.FAILED


def test_a_failed_request_for_verification_costs_passes_and_nothing_else() -> None:
    job = _fold(QUEUED, STARTED, COPIED, VERIFIED, SEALED, VERIFIED, MISMATCH)
    assert (job.state, job.verify_passes, job.mismatches, job.sealed) == (JobState.VERIFIED, 0, 0, True)


def test_sealing_is_due_again_when_the_run_gets_another_status() -> None:
    sealed_early = events.JobSealed(sync_status=run_pb2.SYNC_STATUS_PENDING)
    job = _fold(QUEUED, STARTED, COPIED, VERIFIED, sealed_early)
    assert not job.seal_is_due(SyncStatus.PENDING, 0)
    assert job.seal_is_due(SyncStatus.SYNCED, 0)
    assert not _fold(QUEUED, STARTED, COPIED).seal_is_due(SyncStatus.SYNCED, 0)


def test_what_kept_a_copy_from_being_sealed_is_over_once_it_is() -> None:
    failure = job_pb2.JobFailure(kind=job_pb2.FAILURE_KIND_NETWORK, message="gone")
    waits = events.JobWaiting(condition=job_pb2.WAIT_CONDITION_OPERATOR, detail="sealing: gone", failure=failure)
    assert _fold(QUEUED, STARTED, COPIED, VERIFIED, waits).failure is not None
    assert _fold(QUEUED, STARTED, COPIED, VERIFIED, waits, SEALED).failure is None
    assert _fold(QUEUED, STARTED, COPIED, VERIFIED, MISMATCH, SEALED).failure is not None


def test_a_copy_that_waits_to_be_sealed_anew_and_rots_meanwhile_is_reported_for_both() -> None:
    waits = events.JobWaiting(condition=job_pb2.WAIT_CONDITION_OPERATOR, detail="sealing: gone")
    job = _fold(QUEUED, STARTED, COPIED, VERIFIED, SEALED, waits, MISMATCH)
    assert [finding.rule for finding in findings_of_job(job)] == [Rule.NAS_SYNC_WAITING, Rule.COPY_ROTTED]


def test_sealing_is_due_again_when_the_run_gets_an_override_until_it_is_cleaned() -> None:
    job = _fold(QUEUED, STARTED, COPIED, VERIFIED, events.JobSealed(sync_status=SYNCED, override_count=1))
    assert not job.seal_is_due(SyncStatus.SYNCED, 1)
    assert job.seal_is_due(SyncStatus.SYNCED, 2)
    assert not job.seal_is_due(SyncStatus.CLEANED, 2)


def test_failures_survive_the_log() -> None:
    failure = Failure(FailureKind.NETWORK, "words", tuple(str(n) for n in range(150)))
    message = failure_message(failure)
    assert len(message.paths) == 100


@given(st.integers(0, 100_000), st.integers(0, 100_000))
def test_probing_pauses_grow_and_never_beyond_five_minutes(earlier: int, later: int) -> None:
    first, second = sorted((earlier, later))
    pauses = probe_pause(timedelta(seconds=first)), probe_pause(timedelta(seconds=second))
    assert pauses[0] <= pauses[1] <= timedelta(minutes=5)


@given(st.timedeltas(timedelta(days=-4000), timedelta(days=4000)), st.sampled_from(BACKOFF))
def test_no_change_of_the_clock_makes_a_pause_longer(jump: timedelta, pause: timedelta) -> None:
    network = Failure(FailureKind.NETWORK, "gone")
    job = _fold(QUEUED, STARTED)
    while True:
        job = evolve(job, after_failure(job, network, NOW, 0.0), NOW)
        if job.backoff == pause:
            break
        job = evolve(job, decide_start(job, "engine"), NOW)
    left = remaining(job, NOW + jump)
    assert 0 <= left <= pause.total_seconds()
    if jump >= pause:
        assert left == 0
    elif timedelta(0) <= jump:
        assert left == pytest.approx((pause - jump).total_seconds())


def test_a_pass_that_only_met_files_that_are_too_large_calls_nothing_rotted() -> None:
    note = "verify_skipped_oversize: large can only be downloaded to be checked, and may not be: it is too large"
    report = sync_service_pb2.VerifyReport(expected=2, hashed=1, matched=1, note=note)
    job = _fold(QUEUED, STARTED, LANDING, COPIED, VERIFIED, events.JobVerificationFailed(report=report))
    assert job.failure is not None
    assert job.failure.message == f"a pass could not check every file: {note}"


def test_a_raised_bound_holds_for_the_copy() -> None:
    raised = events.JobVerified(expected=2, hashed=2, matched=2, max_stream_bytes=7)
    job = _fold(QUEUED, STARTED, LANDING, COPIED, raised, VERIFIED, MISMATCH)
    assert job.max_stream_bytes == 7
    failed = events.JobVerificationFailed(max_stream_bytes=7)
    assert _fold(QUEUED, STARTED, LANDING, COPIED, failed, MISMATCH).max_stream_bytes == 7
    assert _fold(QUEUED, STARTED, LANDING, COPIED, VERIFIED, failed, VERIFIED).max_stream_bytes == 7


def test_what_differed_is_known_until_something_lands_in_its_place() -> None:
    differs = events.JobVerificationFailed(differing_blob="d" * 64)
    failure = Failure(FailureKind.HASH_MISMATCH, "differs")
    job = _fold(QUEUED, STARTED, LANDING, COPIED, differs)
    job = evolve(job, after_failure(job, failure, NOW, 0.0), NOW)
    job = evolve(evolve(job, decide_start(job, "e"), NOW), events.JobRequeued(), NOW)
    job = evolve(job, decide_start(job, "e"), NOW)
    assert job.differing_blob == "d" * 64
    assert evolve(job, LANDING, NOW).differing_blob == ""
    assert evolve(job, COPIED, NOW).differing_blob == ""
