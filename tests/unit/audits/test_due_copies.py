"""When a proven copy is read again: what its events say of it (SPEC §4)."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.message import Message

from labferry.events.v1 import job_events_pb2 as events
from labferry.sync.v1 import job_pb2, sync_service_pb2
from libs.event_log.event import RecordedEvent
from services.sync_engine.audits.read_model import CopiesProjection, DueCopy, due_again, next_to_audit, next_to_scrub
from services.sync_engine.event_types import EVENT_TYPES, job_stream
from services.sync_engine.jobs.read_model import JobsProjection

BEGAN = datetime(2026, 5, 1, tzinfo=UTC)
DAY = timedelta(days=1)
FAILED = events.JobVerificationFailed(report=sync_service_pb2.VerifyReport(expected=3), occasion="audit")
ON_REQUEST = events.JobVerificationFailed(report=sync_service_pb2.VerifyReport(expected=3), occasion="request")
NOTHING_MENDED = (FAILED, events.JobRepairEnded(problem="no room"))
MENDED = (FAILED, events.JobCopyRepaired(file_count=1), events.JobRepairEnded(file_count=1))
AT_ONCE = datetime.fromtimestamp(0, UTC)
ENDED = events.JobFailed(failure=job_pb2.JobFailure(kind=job_pb2.FAILURE_KIND_NETWORK))
VERIFIED = events.JobVerified(occasion="transfer")


class Copies:
    """The read model after the events it was told, the n-th of them n hours after the beginning."""

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:")
        self._projections = (JobsProjection(), CopiesProjection())
        for projection in self._projections:
            projection.create(self.connection)
        self.position = 0
        self.ahead: datetime | None = None

    @property
    def now(self) -> datetime:
        return BEGAN + timedelta(hours=self.position)

    def tell(self, job_id: str, *payloads: Message) -> None:
        for payload in payloads:
            self.position += 1
            new = EVENT_TYPES.new_event(payload, actor="service:sync_engine")
            event = RecordedEvent(
                position=self.position,
                stream=job_stream(job_id),
                revision=0,
                type=new.type,
                event_id=f"e-{self.position}",
                recorded_ns=round((self.ahead or self.now).timestamp()) * 10**9,
                actor=new.actor,
                payload=new.payload,
                hash=b"",
            )
            for projection in self._projections:
                projection.apply(self.connection, event, payload)

    def prove(self, job_id: str, run: str = "run", amends: str = "") -> None:
        queued = events.JobQueued(
            job_id=job_id, run=run, equipment_id="CONFOCAL_01", destination="nas", amends_job_id=amends
        )
        self.tell(job_id, queued, events.JobStarted(attempt=1), events.JobCopied(), VERIFIED)

    def audit(self) -> DueCopy:
        return _first(self.audits())

    def scrub(self) -> DueCopy:
        return _first(self.scrubs())

    def audits(self) -> Sequence[DueCopy]:
        return next_to_audit(self.connection, "CONFOCAL_01", "nas", 2, DAY, self.now)

    def scrubs(self) -> Sequence[DueCopy]:
        return next_to_scrub(self.connection, "CONFOCAL_01", "nas", DAY, self.now)


def _first(copies: Sequence[DueCopy]) -> DueCopy:
    return min(copies, key=lambda copy: copy.since + copy.pause)


@pytest.fixture
def copies() -> Copies:
    return Copies()


def scrub_failed(oldest: datetime) -> events.JobVerificationFailed:
    failed = events.JobVerificationFailed(report=sync_service_pb2.VerifyReport(expected=3), occasion="scrub")
    failed.oldest_evidence_time.FromDatetime(oldest)
    return failed


def test_passes_that_fail_in_a_row_come_less_and_less_often_until_one_matches(copies: Copies) -> None:
    copies.prove("sick")
    pauses = []
    for _ in range(7):
        copies.tell("sick", *NOTHING_MENDED)
        assert copies.now - copies.audit().since <= timedelta(hours=1)
        pauses.append(copies.audit().pause / DAY)
    assert pauses == [1, 2, 4, 8, 16, 16, 16]
    copies.tell("sick", VERIFIED)
    assert copies.audit() == DueCopy("sick", copies.now, copies.position, DAY)
    copies.tell("sick", *NOTHING_MENDED)
    assert copies.audit() == DueCopy("sick", copies.now, copies.position, DAY)


def test_a_copy_that_fails_again_and_again_is_overtaken_by_one_that_is_sound(copies: Copies) -> None:
    copies.prove("sick")
    copies.tell("sick", *NOTHING_MENDED * 3)
    copies.prove("sound", run="another")
    assert copies.audit().job_id == "sound"


def test_what_was_put_back_is_read_at_once_but_not_for_ever(copies: Copies) -> None:
    copies.prove("sick")
    copies.tell("sick", *MENDED)
    assert copies.audit().since == AT_ONCE
    copies.tell("sick", *MENDED)
    assert (copies.audit().since, copies.audit().pause) == (copies.now, 2 * DAY)


@pytest.mark.parametrize("begun", [(FAILED,), (FAILED, events.JobCopyRepaired(file_count=1))], ids=len)
def test_a_repair_that_was_cut_off_is_begun_again_at_once_however_often(
    copies: Copies, begun: Sequence[Message]
) -> None:
    copies.prove("sick")
    for _ in range(7):
        copies.tell("sick", *begun)
        assert (copies.audit().since, copies.audit().pause) == (AT_ONCE, DAY)
        assert due_again(copies.connection, ["sick"], DAY) == {"sick": None}
    copies.tell("sick", *MENDED)
    assert (copies.audit().since, copies.audit().pause) == (AT_ONCE, DAY), "it is shown"


def test_what_a_cleanup_found_wrong_is_mended_at_once(copies: Copies) -> None:
    copies.prove("sick")
    copies.tell("sick", events.JobVerificationFailed(report=FAILED.report, occasion="cleanup"))
    assert copies.audit().since == AT_ONCE
    copies.tell("sick", *MENDED)
    assert (copies.audit().since, copies.audit().pause) == (AT_ONCE, DAY)


def test_a_reading_that_could_not_check_mends_nothing_and_has_had_its_turn(copies: Copies) -> None:
    copies.prove("sick")
    copies.tell("sick", events.JobVerificationFailed(report=sync_service_pb2.VerifyReport(), occasion="audit"))
    assert copies.audit() == DueCopy("sick", copies.now, copies.position, DAY)


def test_a_pass_on_request_that_fails_is_followed_at_once_by_one_that_repairs(copies: Copies) -> None:
    copies.prove("sick")
    copies.tell("sick", ON_REQUEST)
    assert copies.audit().since == AT_ONCE
    copies.tell("sick", *NOTHING_MENDED)
    assert copies.audit() == DueCopy("sick", copies.now, copies.position, DAY), "that one comes not at once again"
    copies.tell("sick", *NOTHING_MENDED * 2, ON_REQUEST)
    assert copies.audit().since == AT_ONCE
    copies.tell("sick", *MENDED)
    assert copies.audit().since == AT_ONCE, "what was put back is shown"
    copies.tell("sick", *MENDED)
    assert (copies.audit().since, copies.audit().pause) == (copies.now, 2 * DAY)


def test_when_a_wrong_copy_is_read_again(copies: Copies) -> None:
    copies.prove("sound", run="another")
    copies.prove("sick")
    copies.tell("sick", *NOTHING_MENDED * 2)
    assert due_again(copies.connection, ["sound", "sick", "unknown"], DAY) == {"sick": copies.now + 2 * DAY}
    copies.tell("sick", ON_REQUEST)
    assert due_again(copies.connection, ["sick"], DAY) == {"sick": None}


def test_portions_that_fail_put_off_no_pass(copies: Copies) -> None:
    copies.prove("sick")
    copies.tell("sick", scrub_failed(BEGAN), events.JobRepairEnded())
    first, position = copies.now, copies.position
    copies.tell("sick", *(scrub_failed(BEGAN), events.JobRepairEnded()) * 2)
    assert copies.audit() == DueCopy("sick", first, position, DAY)


def test_a_portion_that_failed_has_had_its_turn(copies: Copies) -> None:
    copies.prove("sick")
    copies.prove("sound", run="another")
    assert copies.scrub().job_id == "sick"
    copies.tell("sick", scrub_failed(copies.now + DAY))
    assert copies.scrub().job_id == "sound"


def test_a_pass_that_failed_was_every_files_turn(copies: Copies) -> None:
    copies.prove("sick")
    copies.prove("sound", run="another")
    copies.tell("sick", FAILED)
    assert copies.scrub().job_id == "sound"


@pytest.mark.parametrize("ending", [(), (events.JobCancelled(),), (events.JobStarted(attempt=1), ENDED)], ids=len)
def test_an_amendment_that_proves_nothing_leaves_its_base_in_audit_and_scrub(
    copies: Copies, ending: Sequence[Message]
) -> None:
    copies.prove("base")
    proven, position = copies.now, copies.position
    amending = events.JobQueued(
        job_id="later", run="run", equipment_id="CONFOCAL_01", destination="nas", amends_job_id="base"
    )
    copies.tell("later", amending, *ending)
    assert copies.audit() == copies.scrub() == DueCopy("base", proven, position, DAY)


def test_an_amendment_that_is_proven_takes_its_bases_place(copies: Copies) -> None:
    copies.prove("base")
    copies.prove("later", amends="base")
    assert copies.audit() == copies.scrub() == DueCopy("later", copies.now, copies.position, DAY)
    copies.tell("base", events.JobPriorityChanged())
    assert [row[0] for row in copies.connection.execute("SELECT job_id FROM copies")] == ["later"]


def test_of_copies_with_the_same_time_ahead_the_first_is_told_beside_the_one_that_is_due(copies: Copies) -> None:
    """A clock that ran ahead leaves one time, which later events keep."""
    copies.prove("right")
    right, position = copies.now, copies.position
    ahead = right + 400 * DAY
    copies.ahead = ahead
    copies.prove("b", run="b")
    first = copies.position
    copies.prove("a", run="a")
    due = DueCopy("right", right, position, DAY)
    assert list(copies.scrubs()) == [due, DueCopy("b", ahead, first, DAY)]
    assert list(copies.audits()) == list(copies.scrubs())
