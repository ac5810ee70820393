"""A run as its events tell it: status by its jobs, overrides in the file's order, what can be revoked."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from labferry.events.v1 import run_events_pb2 as events
from labferry.sync.v1 import finding_pb2
from libs.run_tree.creation_record import SyncStatus
from services.sync_engine.jobs.job import Job, JobState, Wait, WaitCondition
from services.sync_engine.runs.run import (
    OverrideNotFoundError,
    OverrideNotRevocableError,
    RunRecord,
    check_revocable,
    evolve,
    status_after_refusal,
    status_by_jobs,
    status_change,
)

NOW = datetime(2026, 4, 17, 14, 32, tzinfo=UTC)
RUN = "E/P/Runs/Run_1"
AT_GATE = Wait(WaitCondition.GATE, NOW, "closed")


def _job(state: JobState, wait: Wait | None = None) -> Job:
    return Job(job_id="j", run=RUN, equipment_id="E", destination="d", enqueued=NOW, state=state, wait=wait)


def _record(status: SyncStatus | None = None) -> RunRecord:
    return RunRecord(RUN, sync_status=status)


@pytest.mark.parametrize(
    ("jobs", "status"),
    [
        ([_job(JobState.VERIFIED)], SyncStatus.SYNCED),
        ([_job(JobState.VERIFIED), _job(JobState.CLEANUP_ELIGIBLE)], SyncStatus.SYNCED),
        ([_job(JobState.VERIFIED), _job(JobState.AWAITING_VERIFY)], SyncStatus.PENDING),
        ([_job(JobState.VERIFIED), None], SyncStatus.PENDING),
        ([_job(JobState.VERIFIED), _job(JobState.FAILED)], SyncStatus.FAILED),
        ([_job(JobState.QUEUED, AT_GATE)], SyncStatus.BLOCKED_BY_VALIDATION),
        ([_job(JobState.CANCELLED)], SyncStatus.PENDING),
        ([None], SyncStatus.PENDING),
    ],
)
def test_the_status_that_the_required_destinations_make(jobs: list[Job | None], status: SyncStatus) -> None:
    assert status_by_jobs(_record(), jobs) is status


@given(st.sampled_from([None, *SyncStatus]), st.lists(st.sampled_from([None, *JobState]), max_size=4))
def test_synced_needs_proof_at_every_required_destination_and_stays(
    before: SyncStatus | None, states: list[JobState | None]
) -> None:
    jobs = [None if state is None else _job(state) for state in states]
    after = status_by_jobs(_record(before), jobs)
    if before in (SyncStatus.SYNCED, SyncStatus.CLEANED):
        assert after is before
    elif after is SyncStatus.SYNCED:
        assert jobs
        assert all(job is not None and job.state in (JobState.VERIFIED, JobState.CLEANUP_ELIGIBLE) for job in jobs)


def test_a_run_whose_destinations_are_configured_no_more_is_never_called_synced() -> None:
    assert status_by_jobs(_record(), []) is SyncStatus.PENDING
    assert status_by_jobs(_record(SyncStatus.FAILED), []) is SyncStatus.FAILED


def test_a_refusal_blocks_but_never_takes_back_what_is_synced() -> None:
    assert status_after_refusal(_record(SyncStatus.PENDING)) is SyncStatus.BLOCKED_BY_VALIDATION
    for status in (SyncStatus.SYNCED, SyncStatus.CLEANED):
        assert status_after_refusal(_record(status)) is status


def test_a_status_that_is_there_already_is_no_event() -> None:
    assert status_change(_record(SyncStatus.FAILED), SyncStatus.FAILED) == ()
    (change,) = status_change(_record(), SyncStatus.SYNCED)
    assert evolve(_record(), change).sync_status is SyncStatus.SYNCED


def _recorded(override_id: str) -> events.RunOverrideRecorded:
    return events.RunOverrideRecorded(
        run=RUN,
        override_id=override_id,
        problem_class=finding_pb2.RULE_LEFTOVER_JINJA_MARKER,
        operator="asmith",
        reason="meant",
    )


def test_imported_entries_stand_where_they_stood_in_the_file() -> None:
    record = evolve(evolve(_record(), _recorded("a")), _recorded("c"))
    foreign = events.RunOverrideImported(run=RUN, override_id="b", entry_json='{"id":"b","x":{"y":1}}', file_index=1)
    record = evolve(record, foreign)
    assert [e.id for e in record.entries] == ["a", "b", "c"]
    assert record.entries[1].raw == {"id": "b", "x": {"y": 1}}
    assert [logged.imported for logged in record.overrides] == [False, True, False]
    assert record.revision == 2


def test_only_an_override_that_stands_can_be_revoked() -> None:
    record = evolve(_record(), _recorded("a"))
    check_revocable(record, "a")
    with pytest.raises(OverrideNotFoundError):
        check_revocable(record, "b")
    revoked = evolve(
        record,
        events.RunOverrideRevoked(run=RUN, tombstone_id="t", override_id="a", operator="asmith", reason="no longer"),
    )
    for override_id in ("a", "t"):
        with pytest.raises(OverrideNotRevocableError):
            check_revocable(revoked, override_id)
    assert replace(revoked, revision=0).entries[1].revokes == "a"
