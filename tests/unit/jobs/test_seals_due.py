"""Which seals are due: the read model, by which work is found, tells what the job and its run make of it."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime

from google.protobuf.message import Message

from labferry.events.v1 import job_events_pb2 as events
from labferry.events.v1 import run_events_pb2
from labferry.sync.v1 import finding_pb2, job_pb2
from libs.event_log.event import RecordedEvent
from libs.run_tree.creation_record import SyncStatus
from services.sync_engine.event_types import EVENT_TYPES, job_stream, run_stream
from services.sync_engine.jobs.job import SYNC_STATUSES
from services.sync_engine.jobs.read_model import JobsProjection, PlacedJob
from services.sync_engine.jobs.seals_due import jobs_as_work, jobs_to_seal
from services.sync_engine.jobs.work import work_of
from services.sync_engine.runs.read_model import RunsProjection, run_record

RUN = "E/P/Runs/Run_1"
NOW = datetime(2026, 4, 17, 14, 32, tzinfo=UTC)
QUEUED = events.JobQueued(job_id="j", run=RUN, equipment_id="E", destination="nas")
PROVEN = (QUEUED, events.JobStarted(attempt=1), events.JobCopied(), events.JobVerified())
PENDING, SYNCED, CLEANED = SyncStatus.PENDING, SyncStatus.SYNCED, SyncStatus.CLEANED


def _status(status: SyncStatus) -> Message:
    return run_events_pb2.RunSyncStatusChanged(run=RUN, current=SYNC_STATUSES.to_proto(status))


def _sealed(status: SyncStatus, overrides: int = 0) -> Message:
    return events.JobSealed(sync_status=SYNC_STATUSES.to_proto(status), override_count=overrides)


_OVERRIDE = run_events_pb2.RunOverrideRecorded(
    run=RUN, override_id="o", problem_class=finding_pb2.RULE_LEFTOVER_JINJA_MARKER, operator="asmith", reason="meant"
)
_WAITING = events.JobWaiting(condition=job_pb2.WAIT_CONDITION_OPERATOR, detail="sealing: no")
_HELD = events.JobCleanupHeld(interlocks=["copy_is_elsewhere"], detail="no")


class Models:
    """The read models after the events that they were told."""

    def __init__(self, *payloads: Message) -> None:
        self.connection = sqlite3.connect(":memory:")
        self._projections = (JobsProjection(), RunsProjection())
        self._position = 0
        for projection in self._projections:
            projection.create(self.connection)
        self.tell(*payloads)

    def tell(self, *payloads: Message, job_id: str = "j") -> None:
        for payload in payloads:
            self._position += 1
            new = EVENT_TYPES.new_event(payload, actor="service:sync_engine")
            of_run = new.type.startswith("sync.run.")
            event = RecordedEvent(
                position=self._position,
                stream=run_stream(RUN) if of_run else job_stream(job_id),
                revision=0,
                type=new.type,
                event_id=f"e-{self._position}",
                recorded_ns=round(NOW.timestamp()) * 10**9,
                actor=new.actor,
                payload=new.payload,
                hash=b"",
            )
            for projection in self._projections:
                projection.apply(self.connection, event, payload)

    def job(self) -> PlacedJob:
        (placed,) = jobs_as_work(self.connection, ["j"])
        return placed

    def to_seal(self) -> list[str]:
        return [placed.job.job_id for placed in jobs_to_seal(self.connection)]

    def is_over(self) -> bool:
        return work_of(self.job(), NOW).over


def test_the_read_model_finds_due_what_the_job_and_its_run_make_due() -> None:
    seals: Sequence[tuple[Message, ...]] = ((), (_sealed(PENDING),), (_sealed(SYNCED),), (_sealed(SYNCED, 1),))
    perhaps: Sequence[Sequence[tuple[Message, ...]]] = [((), (event,)) for event in (_WAITING, _HELD, _OVERRIDE)]
    told = 0
    for status, *others in itertools.product((PENDING, SYNCED, CLEANED), seals, *perhaps):
        models = Models(*PROVEN, *itertools.chain.from_iterable(others), _status(status))
        placed, record = models.job(), run_record(models.connection, RUN)
        assert record.sync_status is status
        due = placed.job.seal_is_due(status, len(record.overrides))
        assert (placed.seal_due, models.to_seal()) == (due, ["j"] if due else []), (status, others)
        assert models.is_over() is not due
        told += due
    assert told


def test_no_event_of_its_own_makes_a_seal_forgotten_that_is_due() -> None:
    models = Models(*PROVEN, _status(PENDING), _sealed(PENDING))
    assert models.is_over()
    models.tell(_status(SYNCED))
    for event in (events.JobPriorityChanged(priority=3), _WAITING, events.JobVerified(occasion="audit"), _HELD):
        assert not models.is_over()
        models.tell(event)
    assert not models.is_over()
    models.tell(_sealed(SYNCED))
    assert models.is_over()


def test_a_seal_that_failed_is_due_also_when_the_run_is_again_what_the_copy_says() -> None:
    """It may have got as far as the file that says otherwise."""
    models = Models(*PROVEN, _status(PENDING), _sealed(PENDING), _status(SyncStatus.FAILED), _WAITING, _status(PENDING))
    assert not models.is_over()
    models.tell(_sealed(PENDING))
    assert models.is_over()


def test_of_a_destination_that_a_later_job_speaks_for_nothing_is_due() -> None:
    models = Models(*PROVEN, _status(SYNCED))
    assert not models.is_over()
    later = events.JobQueued(job_id="later", run=RUN, equipment_id="E", destination="nas", amends_job_id="j")
    models.tell(later, job_id="later")
    assert models.is_over()
    assert models.to_seal() == []
