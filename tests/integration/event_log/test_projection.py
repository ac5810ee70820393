"""Read models keep up with the log, survive restarts, and stop without taking the service along."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message

from libs.event_log import projection as projection_module
from libs.event_log.event import NewEvent, RecordedEvent
from libs.event_log.memory_store import MemoryEventStore
from libs.event_log.projection import AppliedEvent, Projection, ProjectionRunner, ProjectionStoppedError
from libs.event_log.store import LogClosedError, LogUnavailableError
from tests.integration.event_log.counting import Notes, SumPerStream, notes, sums
from tests.integration.event_log.events import EVENT_TYPES, counted, noted, to


@pytest.fixture
async def store() -> AsyncIterator[MemoryEventStore]:
    opened = MemoryEventStore(service="test", version="0.0.0")
    yield opened
    await opened.close()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "read_models.sqlite3"


@asynccontextmanager
async def running(store: MemoryEventStore, database: Path, *projections: Projection) -> AsyncIterator[ProjectionRunner]:
    runner = ProjectionRunner(store, EVENT_TYPES, database, projections or (SumPerStream(), Notes()))
    try:
        await runner.start()
        yield runner
    finally:
        await runner.close()


async def test_a_caller_reads_its_own_writes(store: MemoryEventStore, database: Path) -> None:
    async with running(store, database) as runner:

        async def write_and_read(stream: str) -> None:
            for number in range(1, 21):
                await store.append([to(stream, counted(1))])
                assert (await runner.query(sums))[stream] == number

        await asyncio.gather(*(write_and_read(f"s-{number}") for number in range(5)))
        assert runner.position == store.head == 101


class SometimesUnreadable(MemoryEventStore):
    """A log that can't be read so many times, like a database that restarts."""

    refusals = 0

    async def read(self, *arguments: Any, **filters: Any) -> AsyncIterator[Sequence[RecordedEvent]]:
        if self.refusals:
            self.refusals -= 1
            raise LogUnavailableError("for the moment")
        async for page in super().read(*arguments, **filters):
            yield page


async def test_a_log_that_is_away_for_a_moment_stops_nothing(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection_module, "_UNAVAILABLE_PAUSE", 0.0)
    store = SometimesUnreadable(service="test", version="0.0.0")
    async with running(store, database) as runner:
        store.refusals = 3
        await store.append([to("s", noted("a"))])
        assert await runner.query(notes) == ["a"]
        assert (runner.failure, store.refusals) == (None, 0)
    store.refusals = 1
    with pytest.raises(LogUnavailableError):
        async with running(store, database):
            raise AssertionError("read models that were not brought up to date")


async def test_starting_catches_up(store: MemoryEventStore, database: Path) -> None:
    await store.append([to("a", *(counted(number) for number in range(3_000)))])
    async with running(store, database) as runner:
        assert runner.position == store.head
        assert await runner.query(sums) == {"a": sum(range(3_000))}


async def test_a_restart_goes_on_at_the_checkpoint(store: MemoryEventStore, database: Path) -> None:
    async with running(store, database) as runner:
        await store.append([to("a", counted(5))])
        await runner.reached(store.head)
    await store.append([to("a", counted(6))])
    with closing(sqlite3.connect(database)) as connection:
        # Shows that the earlier events aren't replayed.
        connection.execute("UPDATE sums SET total = 100 WHERE stream = 'a'")
        connection.commit()
    async with running(store, database) as runner:
        assert await runner.query(sums) == {"a": 106}


def remove(database: Path) -> None:
    database.unlink()


def scribble(database: Path) -> None:
    database.write_bytes(b"not a database" * 1000)


def damage(database: Path) -> None:
    content = bytearray(database.read_bytes())
    content[4096:] = bytes(len(content) - 4096)
    database.write_bytes(content)


def ahead(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE read_model_state SET position = 1000")
        connection.commit()


def foreign(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE read_model_state SET store_id = 'another'")
        connection.execute("UPDATE sums SET total = 0")
        connection.commit()


def stateless(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("DROP TABLE read_model_state")
        connection.commit()


@pytest.mark.parametrize("change", [remove, scribble, damage, ahead, foreign, stateless])
async def test_an_unusable_file_is_made_again(
    store: MemoryEventStore, database: Path, change: Callable[[Path], None]
) -> None:
    async with running(store, database) as runner:
        await store.append([to("a", counted(5), noted("x"))])
        await runner.reached(store.head)
    change(database)
    async with running(store, database) as runner:
        assert runner.failure is None
        assert await runner.query(sums) == {"a": 5}
        assert await runner.query(notes) == ["x"]


async def test_other_projections_are_replayed(store: MemoryEventStore, database: Path) -> None:
    async with running(store, database, SumPerStream()):
        await store.append([to("a", counted(5), noted("x"))])
    async with running(store, database, SumPerStream(), Notes()) as runner:
        assert await runner.query(notes) == ["x"]


async def test_callbacks_get_what_is_live_in_order(store: MemoryEventStore, database: Path) -> None:
    await store.append([to("a", counted(1))])
    async with running(store, database) as runner:
        seen: list[AppliedEvent] = []
        all_seen = asyncio.Event()

        def note(applied: Sequence[AppliedEvent]) -> None:
            assert runner.position >= applied[-1][0].position
            seen.extend(applied)
            if len(seen) >= 50:
                all_seen.set()

        unsubscribe = runner.on_applied(note)
        for number in range(50):
            await store.append([to("a", counted(number))])
        await all_seen.wait()
        assert [event.position for event, _ in seen] == list(range(3, 53))
        assert [payload for _, payload in seen] == [EVENT_TYPES.decode(event) for event, _ in seen]
        unsubscribe()
        await store.append([to("a", counted(1))])
        await runner.reached(store.head)
        assert len(seen) == 50


async def test_a_failing_projection_stops_and_names_the_event(store: MemoryEventStore, database: Path) -> None:
    async with running(store, database, SumPerStream(), Notes(refused="bad")) as runner:
        await store.append([to("a", noted("good"), counted(1), noted("bad"), counted(2))])
        with pytest.raises(ProjectionStoppedError) as caught:
            await runner.query(notes)
        assert runner.failure is not None
        assert caught.value.failure == runner.failure
        assert (runner.failure.projection, runner.failure.position) == ("notes", 4)
        assert runner.failure.event_type == "test.noted.v1"
        assert "this note is refused" in runner.failure.detail
        assert runner.position == 3
        await runner.reached(3)
        await store.append([to("a", counted(7))])
        with pytest.raises(ProjectionStoppedError):
            await runner.reached(store.head)
    async with running(store, database) as runner:
        assert runner.failure is None
        assert await runner.query(notes) == ["good", "bad"]
        assert await runner.query(sums) == {"a": 10}


async def test_failing_in_the_catch_up_lets_the_service_start(store: MemoryEventStore, database: Path) -> None:
    await store.append([to("a", noted("good"), noted("bad"))])
    async with running(store, database, Notes(refused="bad")) as runner:
        assert runner.failure is not None and runner.failure.position == 3


async def test_an_unknown_type_stops_unless_it_may_be_ignored(store: MemoryEventStore, database: Path) -> None:
    async with running(store, database) as runner:
        await store.append([to("a", NewEvent("test.later.v1", b"\x01", "tester", may_ignore=True), noted("x"))])
        assert await runner.query(notes) == ["x"]
        await store.append([to("a", NewEvent("test.later.v1", b"\x01", "tester"))])
        with pytest.raises(ProjectionStoppedError, match=r"test\.later\.v1"):
            await runner.query(notes)


async def test_a_query_sees_one_state_and_can_not_write(store: MemoryEventStore, database: Path) -> None:
    async with running(store, database) as runner:
        await store.append([to("a", counted(1))])
        between, seen = threading.Event(), threading.Event()

        def read_twice(connection: sqlite3.Connection) -> tuple[dict[str, int], dict[str, int]]:
            first = sums(connection)
            seen.set()
            assert between.wait(10)
            return first, sums(connection)

        reading = asyncio.create_task(runner.query(read_twice))
        await asyncio.to_thread(seen.wait, 10)
        await store.append([to("a", counted(1))])
        await runner.reached(store.head)
        between.set()
        assert await reading == ({"a": 1}, {"a": 1})
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await runner.query(lambda connection: connection.execute("DELETE FROM sums"))
        assert await runner.query(sums) == {"a": 2}


async def test_cancelled_queries_give_their_connections_back(store: MemoryEventStore, database: Path) -> None:
    async with running(store, database) as runner:
        hold = threading.Event()
        begun = [threading.Event() for _ in range(3)]

        def wait(event: threading.Event) -> None:
            event.set()
            assert hold.wait(10)

        queries = [asyncio.create_task(runner.query(lambda _, event=event: wait(event))) for event in begun]  # type: ignore[misc]
        for event in begun:
            await asyncio.to_thread(event.wait, 10)
        for query in queries:
            query.cancel()
        await asyncio.wait(queries)
        hold.set()
        assert await asyncio.gather(*(runner.query(sums) for _ in range(10))) == [{}] * 10


async def test_closing_ends_who_waits(store: MemoryEventStore, database: Path) -> None:
    async with running(store, database) as runner:
        waiting = asyncio.create_task(runner.reached(50))
        await asyncio.sleep(0)
    with pytest.raises(LogClosedError):
        await waiting
    with pytest.raises(LogClosedError):
        await runner.query(sums)
    with pytest.raises(LogClosedError):
        await runner.rebuild(dry_run=True)


async def test_another_release_replays_its_read_models(
    store: MemoryEventStore, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied: list[int] = []

    class Noting(SumPerStream):
        def apply(self, connection: sqlite3.Connection, event: RecordedEvent, payload: Message | None) -> None:
            applied.append(event.position)
            super().apply(connection, event, payload)

    for release, expected in (("1.0", [1]), ("1.0", []), ("1.1", [1])):
        monkeypatch.setattr("libs.event_log.read_model.LABFERRY_VERSION", release)
        applied.clear()
        async with running(store, database, Noting()):
            assert applied == expected
