"""Somebody with the file and SQL: each change is found, and where."""

from __future__ import annotations

from pathlib import Path

import pytest

from libs.event_log.log_verification import LogVerdict, verify_log
from libs.event_log.sqlite_store import SqliteEventStore
from libs.event_log.store import LogDamagedError
from tests.integration.event_log.changed_file import tamper
from tests.integration.event_log.events import counted, noted, to

EVENTS = 40


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    path = tmp_path / "events.sqlite3"
    store = await SqliteEventStore.open(path, service="test", version="0.0.0")
    for number in range(1, EVENTS):
        await store.append([to(f"s-{number % 3}", counted(number))])
    await store.close()
    return path


async def verdict_on(path: Path) -> LogVerdict:
    store = await SqliteEventStore.open(path, service="test", version="0.0.0")
    try:
        return await verify_log(store)
    finally:
        await store.close()


async def test_an_untouched_log_is_intact(path: Path) -> None:
    verdict = await verdict_on(path)
    assert verdict.first_break is None
    assert verdict.events_checked == EVENTS


@pytest.mark.parametrize(
    "column",
    [
        "payload = x'08ff'",
        "actor = 'nobody'",
        "reason = 'none'",
        "recorded_ns = recorded_ns - 1",
        "may_ignore = 1",
        "type = 'test.noted.v1'",
        "event_id = 'x'",
        "on_behalf_of = 'x'",
        "correlation_id = 'x'",
        "causation_id = 'x'",
        "stream = 's-9'",
        "revision = 77",
        "hash = zeroblob(32)",
    ],
)
async def test_a_changed_field(path: Path, column: str) -> None:
    tamper(path, f"UPDATE events SET {column} WHERE position = 17")
    found = (await verdict_on(path)).first_break
    assert found is not None and found.position == 17


async def test_a_changed_field_of_the_last_event(path: Path) -> None:
    tamper(path, f"UPDATE events SET actor = 'nobody' WHERE position = {EVENTS}")
    found = (await verdict_on(path)).first_break
    assert found is not None and found.position == EVENTS


async def test_a_removed_event(path: Path) -> None:
    tamper(path, "DELETE FROM events WHERE position = 23")
    found = (await verdict_on(path)).first_break
    assert found is not None and found.position == 23


async def test_a_removed_event_whose_gap_was_closed(path: Path) -> None:
    tamper(
        path,
        "DELETE FROM events WHERE position = 23",
        "UPDATE events SET position = -position WHERE position > 23",
        "UPDATE events SET position = -position - 1 WHERE position < 0",
        f"UPDATE sqlite_sequence SET seq = {EVENTS - 1}",
    )
    found = (await verdict_on(path)).first_break
    assert found is not None and found.position == 23


async def test_swapped_events(path: Path) -> None:
    tamper(
        path,
        "UPDATE events SET position = -1 WHERE position = 11",
        "UPDATE events SET position = 11 WHERE position = 12",
        "UPDATE events SET position = 12 WHERE position = -1",
    )
    found = (await verdict_on(path)).first_break
    assert found is not None and found.position == 11


async def test_an_added_event(path: Path) -> None:
    tamper(
        path,
        "INSERT INTO events SELECT position + 1, stream, revision + 50, type, 'new-id', recorded_ns, actor, '', '', '',"
        f" '', 0, hash, payload FROM events WHERE position = {EVENTS}",
    )
    found = (await verdict_on(path)).first_break
    assert found is not None and found.position == EVENTS + 1


async def test_a_cut_off_tail(path: Path) -> None:
    tamper(path, f"DELETE FROM events WHERE position > {EVENTS - 5}")
    found = (await verdict_on(path)).first_break
    assert found is not None and found.position == EVENTS - 4
    assert f"up to position {EVENTS}" in found.reason


async def test_an_emptied_log_is_not_begun_anew(path: Path) -> None:
    tamper(path, "DELETE FROM events")
    with pytest.raises(LogDamagedError, match="all of them are gone"):
        await SqliteEventStore.open(path, service="test", version="0.0.0")


async def test_another_store_id(path: Path) -> None:
    tamper(path, "UPDATE log SET store_id = 'another'")
    found = (await verdict_on(path)).first_break
    assert found is not None and found.position == 1


async def test_a_log_that_is_known_to_be_damaged_can_be_read_but_not_written(path: Path) -> None:
    tamper(path, f"DELETE FROM events WHERE position > {EVENTS - 5}")
    store = await SqliteEventStore.open(path, service="test", version="0.0.0")
    try:
        assert store.damage is not None
        with pytest.raises(LogDamagedError):
            await store.append([to("s", noted("x"))])
        assert len(await store.read_stream("s-1")) > 0
    finally:
        await store.close()
