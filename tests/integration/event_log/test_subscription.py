"""Following a log: nothing missed, nothing twice, whoever restarts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from libs.event_log import subscription as subscription_module
from libs.event_log.memory_store import MemoryEventStore
from libs.event_log.sqlite_store import SqliteEventStore
from libs.event_log.store import (
    EventStore,
    ForeignCursorError,
    LogClosedError,
    PositionBeyondHeadError,
    PositionTooOldError,
)
from libs.event_log.subscription import BATCH_EVENTS, CaughtUpStep, CheckpointStep, EventsStep, Step, Subscription
from tests.integration.event_log.events import counted, noted, to


@pytest.fixture
async def store() -> AsyncIterator[EventStore]:
    opened = MemoryEventStore(service="test", version="0.0.0")
    yield opened
    await opened.close()


@pytest.fixture
def stop() -> asyncio.Event:
    return asyncio.Event()


async def until_caught_up(steps: AsyncIterator[Step]) -> list[Step]:
    seen: list[Step] = []
    async for step in steps:
        seen.append(step)
        if isinstance(step, CaughtUpStep):
            break
    return seen


def positions(steps: list[Step]) -> list[int]:
    return [event.position for step in steps if isinstance(step, EventsStep) for event in step.events]


async def test_history_then_live(store: EventStore, stop: asyncio.Event) -> None:
    await store.append([to("a", *(counted(number) for number in range(600)))])
    steps = Subscription(store, after=0).steps(stop)
    history = await until_caught_up(steps)
    assert positions(history) == list(range(1, 602))
    assert all(len(step.events) <= BATCH_EVENTS for step in history if isinstance(step, EventsStep))
    assert history[-1] == CaughtUpStep(601)
    for number in range(602, 620):
        await store.append([to("a", counted(number))])
        step = await anext(steps)
        assert isinstance(step, EventsStep) and positions([step]) == [number] and step.position == number


async def test_from_now_on(store: EventStore, stop: asyncio.Event) -> None:
    await store.append([to("a", counted(1))])
    steps = Subscription(store).steps(stop)
    assert await anext(steps) == CaughtUpStep(2)
    await store.append([to("a", counted(2))])
    step = await anext(steps)
    assert isinstance(step, EventsStep) and positions([step]) == [3]


async def test_caught_up_means_what_there_was_at_the_beginning(store: EventStore, stop: asyncio.Event) -> None:
    await store.append([to("a", *(counted(number) for number in range(100)))])
    steps = Subscription(store, after=0).steps(stop)
    first = await anext(steps)
    await store.append([to("a", counted(0))])
    rest = await until_caught_up(steps)
    assert set(range(1, 102)) <= set(positions([first, *rest]))


async def test_filters(store: EventStore, stop: asyncio.Event) -> None:
    for number in range(10):
        await store.append([to(f"job-{number}", counted(number), noted("x"))])
        await store.append([to(f"run-{number}", counted(number))])
    jobs = await until_caught_up(Subscription(store, after=0, stream_prefix="job-").steps(stop))
    assert len(positions(jobs)) == 20
    some = await until_caught_up(
        Subscription(store, after=0, stream_prefix="job-", types=["test.noted.v1"]).steps(stop)
    )
    assert len(positions(some)) == 10
    assert some[-1] == CaughtUpStep(store.head)


async def test_checkpoints_when_nothing_matches(store: EventStore, stop: asyncio.Event) -> None:
    steps = Subscription(store, stream_prefix="job-", checkpoint_seconds=0).steps(stop)
    assert await anext(steps) == CaughtUpStep(1)
    await store.append([to("run-1", counted(1))])
    assert await anext(steps) == CheckpointStep(2)
    await store.append([to("job-1", counted(1))])
    step = await anext(steps)
    assert isinstance(step, EventsStep) and step.position == 3


async def test_checkpoints_come_after_a_while_only(store: EventStore, stop: asyncio.Event) -> None:
    steps = Subscription(store, stream_prefix="job-", checkpoint_seconds=3600).steps(stop)
    await anext(steps)
    await store.append([to("run-1", counted(1))])
    waiting = asyncio.ensure_future(anext(steps))
    await store.append([to("job-1", counted(1))])
    step = await waiting
    assert isinstance(step, EventsStep) and step.position == 3


async def test_a_long_stretch_without_a_match(
    store: EventStore, stop: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription_module, "_SCAN_POSITIONS", 7)
    await store.append([to("run-1", *(counted(number) for number in range(50)))])
    await store.append([to("job-1", counted(1))])
    steps = await until_caught_up(Subscription(store, after=0, stream_prefix="job-", checkpoint_seconds=0).steps(stop))
    assert steps[0] == CheckpointStep(7)
    assert positions(steps) == [52]


async def test_cursors_that_can_not_be_followed(store: EventStore) -> None:
    with pytest.raises(ForeignCursorError):
        Subscription(store, store_id="another", after=0)
    with pytest.raises(PositionBeyondHeadError):
        Subscription(store, store_id=store.store_id, after=2)
    with pytest.raises(PositionTooOldError):
        Subscription(store, after=-1)
    Subscription(store, store_id=store.store_id, after=1)


async def test_stopping_and_closing(store: EventStore, stop: asyncio.Event) -> None:
    steps = Subscription(store).steps(stop)
    await anext(steps)
    waiting = asyncio.ensure_future(anext(steps, None))
    await asyncio.sleep(0)
    stop.set()
    assert await waiting is None
    others = Subscription(store).steps(asyncio.Event())
    await anext(others)
    waiting = asyncio.ensure_future(anext(others, None))
    await asyncio.sleep(0)
    await store.close()
    with pytest.raises(LogClosedError):
        await waiting


async def test_a_large_payload_goes_alone(store: EventStore, stop: asyncio.Event) -> None:
    await store.append([to("a", noted("x" * 600_000), noted("y" * 600_000), noted("z"))])
    steps = await until_caught_up(Subscription(store, after=1).steps(stop))
    assert [len(step.events) for step in steps if isinstance(step, EventsStep)] == [1, 2]


async def test_resumed_across_restarts_of_both_sides(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite3"
    cursor, store_id, seen = 0, None, list[int]()
    for session in range(4):
        store = await SqliteEventStore.open(path, service="test", version="0.0.0")
        stop = asyncio.Event()
        writing = asyncio.gather(*(store.append([to(f"s-{session}", counted(number))]) for number in range(150)))
        # The reader leaves in the middle, as if it were killed after handling some message.
        wanted = 80 if session < 3 else store.head + 10_000
        handled = 0
        async for step in Subscription(store, store_id=store_id, after=cursor).steps(stop):
            if isinstance(step, EventsStep):
                seen += [event.position for event in step.events]
                handled += len(step.events)
            cursor, store_id = step.position, store.store_id
            if handled >= wanted or (writing.done() and cursor == store.head):
                break
        await writing
        await store.close()
    assert seen == list(range(1, 602))


async def test_a_slow_reader_is_never_buffered_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await SqliteEventStore.open(tmp_path / "events.sqlite3", service="test", version="0.0.0")
    try:
        steps = Subscription(store, after=0).steps(asyncio.Event())
        await anext(steps)
        for _ in range(20):
            await store.append([to("a", *(counted(number) for number in range(200)))])
        read = 0
        fetch = store._reader.pages

        def counting_pages(*arguments: object, **options: object) -> object:
            nonlocal read
            read += 1
            return fetch(*arguments, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(store._reader, "pages", counting_pages)
        seen = [1]
        while len(seen) < 4001:
            step = await anext(steps)
            seen += positions([step])
            assert read <= 1
        assert seen == list(range(1, 4002))
    finally:
        await store.close()
