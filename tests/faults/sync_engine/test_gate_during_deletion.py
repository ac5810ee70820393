"""A gate that closes in the middle of a deletion ends it, whoever closes it (SPEC §4)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from labferry.events.v1 import run_events_pb2
from labferry.sync.v1.finding_pb2 import RULE_LEFTOVER_JINJA_MARKER
from services.sync_engine.cleanup.interlocks import CleanupRules
from services.sync_engine.cleanup.ticket import Limits
from services.sync_engine.validation.finding import Rule
from tests.faults.sync_engine.engine_parts import RUN, TEST, Parts, engine_parts
from tests.faults.sync_engine.meddling import start_meddled
from tests.integration.sync_engine.running_engine import Site
from tests.integration.sync_engine.test_cleanup import data_files

LEFTOVER = "of {{ sample }}.txt"
CLOSED = "1 hard finding without an active override: leftover_jinja_marker"
ENDED = "sync.run.cleanup_ended.v1"
# Two portions, and a few files.
FILES = 205


async def test_a_tombstone_that_the_wizard_writes_ends_it_before_the_next_portion(site: Site) -> None:
    site.lab.settings["nas_cleanup"] = {"enabled": True, "min_verify_passes": 1, "min_age_hours": 0}
    run = site.make_run({**{f"{number:03}.raw": b"%d" % number for number in range(FILES)}, LEFTOVER: b"?"})
    engine = await start_meddled(site, tombstone_before_unlink=["003.raw"])
    try:
        await engine.override(run, RULE_LEFTOVER_JINJA_MARKER)
        await engine.enqueue(run)
        await engine.until_event(f"run-{run}", ENDED)
        told = run_events_pb2.RunCleanupEnded()
        (ended,) = [e for e in await engine.events() if e.type == ENDED]
        assert ended.payload.Unpack(told)
        assert (told.cleaned, told.file_count, told.remaining_count) == (False, 100, FILES + 1 - 100)
        assert len(data_files(site.local(run))) == FILES + 1 - 100
        assert {left.why for left in told.remaining} == {CLOSED}
    finally:
        assert await engine.service.stop() == 0


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    rules = CleanupRules(True, 2, timedelta(hours=24), True, Limits(1000, 1 << 30))
    async with engine_parts(tmp_path, rules, portion_files=1) as parts:
        yield parts


async def test_an_override_that_expires_ends_it(parts: Parts) -> None:
    for name in ("a.tif", LEFTOVER, "z.tif"):
        (parts.here / name).write_bytes(name.encode())
    until = parts.clock.now + timedelta(hours=26)
    await parts.overrides.record(RUN, Rule.LEFTOVER_JINJA_MARKER, "asmith", "meant", until, TEST, None)
    await parts.bring()
    await parts.pass_over()
    parts.clock.now += timedelta(hours=25)

    async def an_hour_later() -> None:
        parts.clock.now += timedelta(hours=2)

    parts.before_each_deletion(an_hour_later)
    answer = await parts.clean()
    assert (answer.cleaned, answer.file_count) == (False, 1)
    assert [left.path for left in answer.remaining] == [LEFTOVER.encode(), b"z.tif"]
    assert {left.why for left in answer.remaining} == {CLOSED}
