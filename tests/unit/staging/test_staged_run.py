"""The state machine of a staged run against a model of it: single steps forward, and nothing else (SPEC §8)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from labferry.events.v1 import staging_events_pb2 as events
from labferry.sync.v1 import run_pb2, staging_service_pb2
from libs.run_tree.ingest_record import StagingState
from services.sync_engine.staging.staged_run import (
    StagedRun,
    StagingHistoryError,
    StagingHold,
    evolve,
    may_step,
)
from services.sync_engine.staging.staging_findings import findings_of_staged

RUN = "CONFOCAL_01/Cortex/Runs/Run_1"
BEGIN = datetime(2026, 4, 17, 14, 32, tzinfo=UTC)
ORDER = ["staging", "complete", "sync_queued", "sync_verified", "cleared"]
STEPS: list[Message] = [
    events.StagingDiscovered(
        run=RUN, equipment_id="CONFOCAL_01", project="Cortex", run_kind=run_pb2.RUN_KIND_EXPERIMENTAL, host="w"
    ),
    events.StagingCompleted(run=RUN, file_count=3, byte_count=9, host="w"),
    events.StagingQueued(run=RUN, job_ids=["j-1", "j-2"], host="w"),
    events.StagingVerified(run=RUN, nas_path="/nas/x", host="w"),
    events.StagingCleared(run=RUN, host="w"),
]
HELD = events.StagingHeld(run=RUN, hold=staging_service_pb2.STAGING_HOLD_STALLED, detail="Nothing arrives any more.")
RELEASED = events.StagingHeld(run=RUN)


@given(st.lists(st.sampled_from([*range(len(STEPS)), "held", "released"]), max_size=15))
def test_only_the_very_next_state_may_follow(history: list[int | str]) -> None:
    record, reached, held = StagedRun(RUN), 0, False
    for number, what in enumerate(history):
        at = BEGIN + timedelta(seconds=number)
        if isinstance(what, str):
            record, held = evolve(record, HELD if what == "held" else RELEASED, at), what == "held"
        elif what == reached:
            assert may_step(record, StagingState(ORDER[what]))
            record, reached, held = evolve(record, STEPS[what], at), reached + 1, False
            assert record.reached(StagingState(ORDER[what])) == at
        else:
            assert not may_step(record, StagingState(ORDER[what]))
            with pytest.raises(StagingHistoryError):
                evolve(record, STEPS[what], at)
        assert [step.state.value for step in record.steps] == ORDER[:reached]
        assert record.state == (ORDER[reached - 1] if reached else None)
        assert (record.held is not None) is held
    stored = msgspec.json.decode(msgspec.json.encode(record), type=StagedRun)
    assert stored == record


def test_what_each_step_says_is_kept() -> None:
    record = StagedRun(RUN)
    for event in STEPS:
        record = evolve(record, event, BEGIN)
    assert (record.equipment_id, record.project) == ("CONFOCAL_01", "Cortex")
    assert (record.file_count, record.byte_count, record.job_ids) == (3, 9, ("j-1", "j-2"))
    assert (record.nas_path, record.revision) == ("/nas/x", 4)


@pytest.mark.parametrize("hold", StagingHold)
def test_a_hold_that_needs_somebody_is_a_finding(hold: StagingHold) -> None:
    value = staging_service_pb2.StagingHold.Value(f"STAGING_HOLD_{hold.name}")
    held = evolve(
        evolve(StagedRun(RUN), STEPS[0], BEGIN), events.StagingHeld(run=RUN, hold=value, detail="Why."), BEGIN
    )
    said = [(f.rule.value, f.tier.value, f.run_path, f.rule_detail) for f in findings_of_staged(held)]
    if hold in (StagingHold.BLOCKED, StagingHold.GONE):
        assert said == []
    else:
        rule = "staging_stalled" if hold is StagingHold.STALLED else "staging_waiting"
        assert said == [(rule, "soft", RUN, "Why.")]
    assert list(findings_of_staged(evolve(held, RELEASED, BEGIN))) == []
