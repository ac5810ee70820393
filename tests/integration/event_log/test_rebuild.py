"""Read models made again from the log beside the running ones, compared, and swapped."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from libs.event_log.memory_store import MemoryEventStore
from libs.event_log.projection import ProjectionRunner, ProjectionStoppedError
from libs.event_log.read_model import remove_database
from libs.event_log.rebuild import ProjectionReport
from libs.event_log.sqlite_store import SqliteEventStore
from tests.integration.event_log.counting import Notes, SumPerStream, notes, sums
from tests.integration.event_log.events import EVENT_TYPES, counted, noted, to


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "read_models.sqlite3"


@pytest.fixture
async def store() -> AsyncIterator[MemoryEventStore]:
    opened = MemoryEventStore(service="test", version="0.0.0")
    for number in range(20):
        await opened.append([to(f"s-{number % 4}", counted(number), noted(f"note {number}"))])
    yield opened
    await opened.close()


@pytest.fixture
def fragile() -> Notes:
    return Notes()


@pytest.fixture
async def runner(store: MemoryEventStore, database: Path, fragile: Notes) -> AsyncIterator[ProjectionRunner]:
    started = ProjectionRunner(store, EVENT_TYPES, database, (SumPerStream(), fragile))
    await started.start()
    yield started
    await started.close()


def change(database: Path, statement: str) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(statement)
        connection.commit()


def is_there(database: Path) -> bool:
    return database.exists()


async def test_nothing_differs(runner: ProjectionRunner, store: MemoryEventStore) -> None:
    for dry_run in (True, False):
        assert await runner.rebuild(dry_run) == [
            ProjectionReport("sum_per_stream", 41, 0, []),
            ProjectionReport("notes", 41, 0, []),
        ]
    await store.append([to("s-0", counted(1_000))])
    assert (await runner.query(sums))["s-0"] == sum(range(0, 20, 4)) + 1_000


@pytest.mark.parametrize(
    ("statement", "sample"),
    [
        ("UPDATE sums SET total = total + 1 WHERE stream = 's-2'", "sums ('s-2',): in use ('s-2', 51), in the replay"),
        ("DELETE FROM sums WHERE stream = 's-0'", "sums ('s-0',): in the replay, but not in use"),
        ("INSERT INTO sums VALUES ('s-1b', 1)", "sums ('s-1b',): in use, but not in the replay"),
    ],
)
async def test_a_changed_row_is_found_and_repaired(
    runner: ProjectionRunner, database: Path, statement: str, sample: str
) -> None:
    right = await runner.query(sums)
    change(database, statement)
    wrong = await runner.query(sums)
    assert wrong != right
    for dry_run, after in ((True, wrong), (False, right)):
        found, untouched = await runner.rebuild(dry_run)
        assert found.differences == 1
        assert found.samples[0].startswith(sample)
        assert untouched.differences == 0
        assert await runner.query(sums) == after
    assert [report.differences for report in await runner.rebuild(True)] == [0, 0]


async def test_a_file_deleted_underneath_is_made_again(
    runner: ProjectionRunner, database: Path, store: MemoryEventStore
) -> None:
    before = await runner.query(sums)
    remove_database(database)
    await runner.rebuild(dry_run=False)
    assert is_there(database)
    await store.append([to("s-0", noted("after"))])
    assert await runner.query(sums) == before
    assert (await runner.query(notes))[-1] == "after"
    await runner.close()
    again = ProjectionRunner(store, EVENT_TYPES, database, (SumPerStream(), Notes()))
    await again.start()
    assert await again.query(sums) == before
    await again.close()


async def test_a_dropped_table_is_reported(runner: ProjectionRunner, database: Path) -> None:
    change(database, "DROP TABLE notes")
    _, report = await runner.rebuild(dry_run=False)
    assert report.differences == 1
    assert "can't be read" in report.samples[0]
    assert len(await runner.query(notes)) == 20


async def test_many_differences_are_counted_and_a_few_are_shown(runner: ProjectionRunner, database: Path) -> None:
    change(database, "UPDATE notes SET text = text || '!'")
    _, report = await runner.rebuild(dry_run=True)
    assert report.differences == 20
    assert len(report.samples) == 10


async def test_a_stopped_projection_goes_on_after_a_rebuild(
    runner: ProjectionRunner, store: MemoryEventStore, fragile: Notes
) -> None:
    fragile.refused = "too much"
    await store.append([to("s-0", noted("too much"), counted(1))])
    with pytest.raises(ProjectionStoppedError):
        await runner.query(notes)
    fragile.refused = ""
    await runner.rebuild(dry_run=False)
    assert (await runner.query(notes))[-1] == "too much"
    assert runner.failure is None


async def test_a_replay_that_fails_leaves_the_file_in_use(
    runner: ProjectionRunner, database: Path, fragile: Notes
) -> None:
    fragile.refused = "note 7"
    with pytest.raises(ProjectionStoppedError) as caught:
        await runner.rebuild(dry_run=False)
    assert caught.value.failure.projection == "notes"
    assert len(await runner.query(notes)) == 20
    assert not list(database.parent.glob("*.rebuild*"))


async def test_readers_and_writers_go_on_meanwhile(runner: ProjectionRunner, store: MemoryEventStore) -> None:
    rebuilding = asyncio.create_task(runner.rebuild(dry_run=False))
    for number in range(100):
        await store.append([to("busy", counted(1))])
        assert (await runner.query(sums))["busy"] == number + 1
    assert [report.differences for report in await rebuilding] == [0, 0]
    assert (await runner.query(sums))["busy"] == 100


async def test_thousands_of_events_arrive_meanwhile(tmp_path: Path) -> None:
    store = await SqliteEventStore.open(tmp_path / "events.sqlite3", service="test", version="0.0.0")
    runner = ProjectionRunner(store, EVENT_TYPES, tmp_path / "read_models.sqlite3", (SumPerStream(), Notes()))
    await runner.start()
    told: list[int] = []
    runner.on_applied(lambda applied: told.extend(event.position for event, _ in applied))

    async def write(writer: int) -> None:
        for number in range(100):
            await store.append([to(f"s-{writer}", *(counted(1) for _ in range(5)), noted(f"{writer}/{number}"))])

    try:
        writing = asyncio.gather(*(write(writer) for writer in range(8)))
        rebuilds = 0
        while not writing.done():
            assert [report.differences for report in await runner.rebuild(dry_run=rebuilds % 2 == 1)] == [0, 0]
            rebuilds += 1
        await writing
        assert await runner.query(sums) == {f"s-{writer}": 500 for writer in range(8)}
        assert len(await runner.query(notes)) == 800
        await asyncio.sleep(0)
        assert rebuilds
        assert told == list(range(2, store.head + 1))
    finally:
        await runner.close()
        await store.close()


async def test_a_swap_waits_for_running_queries(runner: ProjectionRunner) -> None:
    begun, hold = threading.Event(), threading.Event()

    def slow(connection: sqlite3.Connection) -> int:
        begun.set()
        assert hold.wait(10)
        return len(notes(connection))

    query = asyncio.create_task(runner.query(slow))
    await asyncio.to_thread(begun.wait, 10)
    rebuilding = asyncio.create_task(runner.rebuild(dry_run=False))
    later = asyncio.create_task(runner.query(notes))
    hold.set()
    assert await query == 20
    await rebuilding
    assert len(await later) == 20


async def test_a_caller_that_goes_away(runner: ProjectionRunner, database: Path) -> None:
    rebuilding = asyncio.create_task(runner.rebuild(dry_run=False))
    await asyncio.sleep(0)
    rebuilding.cancel()
    await asyncio.wait({rebuilding})
    assert [report.differences for report in await runner.rebuild(dry_run=False)] == [0, 0]
    assert len(await runner.query(notes)) == 20
    assert not list(database.parent.glob("*.rebuild*"))
