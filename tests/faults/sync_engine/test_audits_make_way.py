"""Readings of proven copies make way for transfers, though not for ever (SPEC §4: every file within its interval)."""

from __future__ import annotations

from pathlib import Path

from services.sync_engine.jobs.making_way import BREATHER, PATIENCE, Slot
from tests.faults.sync_engine.audited_copy import Audited, audited


async def _read_nothing(copy: Audited) -> None:
    for _ in range(50):
        await copy.projections.query(lambda c: None)
    assert await copy.readings() == []


async def test_an_equipment_that_is_never_idle_is_read_beside_its_transfers_at_last(tmp_path: Path) -> None:
    async with audited(tmp_path) as copy:
        copy.parts.take_slot(True)
        copy.auditor.start()
        await _read_nothing(copy)
        copy.parts.clock.passed += PATIENCE.total_seconds()
        copy.parts.take_slot(True)
        copy.parts.take_slot(False)
        copy.parts.take_slot(True)
        await copy.until_readings(1)


async def test_a_breather_is_enough_to_make_way_for_what_comes_after_it(tmp_path: Path) -> None:
    async with audited(tmp_path) as copy:
        copy.parts.take_slot(True)
        copy.parts.clock.passed += PATIENCE.total_seconds()
        copy.parts.take_slot(False)
        copy.parts.clock.passed += BREATHER.total_seconds()
        copy.parts.take_slot(True)
        copy.auditor.start()
        await _read_nothing(copy)


async def test_a_paused_equipment_is_left_alone_however_long(tmp_path: Path) -> None:
    async with audited(tmp_path) as copy:
        copy.parts.take_slot(True)
        copy.parts.slot.become(Slot.CLOSED)
        copy.auditor.start()
        copy.parts.clock.passed += 2 * PATIENCE.total_seconds()
        copy.parts.slot.become(Slot.CLOSED)
        await _read_nothing(copy)
        copy.parts.slot.become(Slot.IN_WORK)
        await _read_nothing(copy)
        copy.parts.slot.become(Slot.IDLE)
        await copy.until_readings(1)
