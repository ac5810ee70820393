"""A clock that ran ahead once, and left its time in the log, keeps no copy from being read again (SPEC §4)."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from labferry.events.v1 import job_events_pb2 as events
from services.sync_engine.audits import portions
from services.sync_engine.audits.auditor import PassRules
from services.sync_engine.jobs.file_list import read_evidence
from tests.faults.sync_engine.audited_copy import EQUIPMENT, Audited, audited

AHEAD = timedelta(days=400)
HOUR = timedelta(hours=1)


async def _looks(copy: Audited) -> None:
    """The auditor looks whether something is due, and nothing is for which it didn't read."""
    for _ in range(50):
        copy.auditor.busy(EQUIPMENT, False)
        await copy.projections.query(lambda c: None)


def _pass_by(copy: Audited, time: timedelta) -> None:
    copy.parts.clock.now += time
    copy.parts.clock.passed += time.total_seconds()
    copy.auditor.busy(EQUIPMENT, False)


async def test_passes_are_made_one_interval_after_the_other(tmp_path: Path) -> None:
    async with audited(tmp_path, rules=PassRules(passes=9, interval=HOUR, scrub_interval=None)) as copy:
        copy.parts.clock.now -= AHEAD
        copy.auditor.start()
        for passes in (1, 2, 3):
            await _looks(copy)
            assert (await copy.job()).verify_passes == passes
            _pass_by(copy, HOUR)
            await copy.until_passes(passes + 1)
        assert (await copy.job()).verified > copy.parts.clock()


async def test_every_file_is_read_within_the_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portions, "MOST_FILES", 1)
    async with audited(tmp_path, rules=PassRules(passes=1, interval=HOUR, scrub_interval=4 * HOUR)) as copy:
        copy.parts.clock.now -= AHEAD
        copy.auditor.start()
        for count in (0, 3, 6):
            await copy.until_readings(count)
            await _looks(copy)
            read = [_files(copy, scrubbed) for scrubbed in await copy.readings()]
            assert sorted(read[-3:]) == [b"a.tif", b"b.tif", b"c.tif"][:count]
            assert len(read) == count
            _pass_by(copy, 3 * HOUR)


def _files(copy: Audited, scrubbed: events.JobFilesScrubbed) -> bytes:
    (file,) = read_evidence(copy.parts.bench.blobs, scrubbed.evidence_blob)
    return file.path
