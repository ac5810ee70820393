"""How far a job is, as its watchers are told."""

from __future__ import annotations

from services.sync_engine.jobs.progress import JobProgressMeter
from services.sync_engine.transfer.transport import ProgressPhase


def test_what_grew_or_was_read_twice_is_no_more_than_the_whole() -> None:
    meter = JobProgressMeter(lambda: None)
    meter.begin(ProgressPhase.VERIFYING, 1, 100)
    meter.advance(0, 70, b"a")
    meter.advance(2, 70, b"a")
    told = meter.snapshot()
    assert (told.files_done, told.bytes_done) == (1, 100)
    assert told.remaining_seconds == 0.0
