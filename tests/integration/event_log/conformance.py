"""What every event store must do. A store's test module subclasses `EventStoreConformance` and gives a `store`."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import pytest

from labferry.events.v1.log_events_pb2 import StoreCreated
from libs.event_log.event import NewEvent
from libs.event_log.genesis import STORE_CREATED
from libs.event_log.hash_chain import verify_chain
from libs.event_log.log_verification import verify_log
from libs.event_log.store import (
    MAX_PAYLOAD_BYTES,
    EventStore,
    EventTooLargeError,
    Expected,
    InvalidEventError,
    LeaseLostError,
    LogClosedError,
    PositionBeyondHeadError,
    RequestIdReusedError,
    RequestKey,
    RevisionConflictError,
)
from tests.integration.event_log.events import collect, counted, noted, to


class SteppingClock:
    """A clock that the test sets, nanoseconds since the epoch."""

    def __init__(self) -> None:
        self.now = 1_000_000_000_000_000_000

    def __call__(self) -> int:
        return self.now


def request(name: str, body: bytes = b"body", actor: str = "tester") -> RequestKey:
    return RequestKey(actor, "Method", name, body)


class EventStoreConformance:
    """Subclasses define the fixtures `store` (an open, new store on `clock`) and inherit `clock`."""

    @pytest.fixture
    def clock(self) -> SteppingClock:
        return SteppingClock()

    async def test_first_event_names_the_store(self, store: EventStore) -> None:
        (first,) = await collect(store.read())
        assert (first.position, first.stream, first.revision, first.actor) == (1, "log", 0, "system")
        assert first.type == STORE_CREATED.name
        created = StoreCreated.FromString(first.payload)
        assert (created.store_id, created.service, created.version) == (store.store_id, "conformance", "0.0.0")
        assert (store.head, store.oldest, store.damage) == (1, 1, None)

    async def test_append_gives_places_and_keeps_every_field(self, store: EventStore, clock: Callable[[], int]) -> None:
        event = NewEvent(
            "test.noted.v1",
            b"\x00\xff",
            "ann",
            may_ignore=True,
            on_behalf_of="bob",
            reason="because Ω",
            correlation_id="c-1",
            causation_id="e-0",
        )
        result = await store.append([to("s-1", event, noted("b"))])
        assert not result.repeated
        first, second = result.events
        assert (first.position, first.revision, second.position, second.revision) == (2, 0, 3, 1)
        assert (first.type, first.payload, first.actor, first.may_ignore) == ("test.noted.v1", b"\x00\xff", "ann", True)
        assert (first.on_behalf_of, first.reason) == ("bob", "because Ω")
        assert (first.correlation_id, first.causation_id, first.recorded_ns) == ("c-1", "e-0", clock())
        assert first.event_id < second.event_id
        assert list(result.events) == await collect(store.read(1))
        assert store.head == 3

    async def test_expected_revisions(self, store: EventStore) -> None:
        await store.append([to("s", noted("0"), expected=Expected.NONE)])
        await store.append([to("s", noted("1"), expected=0)])
        await store.append([to("s", noted("2"), expected=Expected.EXISTS)])
        await store.append([to("s", noted("3"), expected=Expected.ANY)])
        wrong: list[tuple[str, int | Expected, int | None]] = [
            ("s", Expected.NONE, 3),
            ("s", 2, 3),
            ("s", 4, 3),
            ("new", 0, None),
            ("new", Expected.EXISTS, None),
        ]
        for stream, expected, actual in wrong:
            with pytest.raises(RevisionConflictError) as caught:
                await store.append([to(stream, noted("x"), expected=expected)])
            assert (caught.value.stream, caught.value.actual) == (stream, actual)
        assert [event.revision for event in await store.read_stream("s")] == [0, 1, 2, 3]
        assert await store.read_stream("new") == []
        assert store.head == 5

    async def test_several_streams_are_atomic(self, store: EventStore) -> None:
        await store.append([to("a", noted("a0")), to("b", noted("b0")), to("a", noted("a1"), expected=0)])
        with pytest.raises(RevisionConflictError):
            await store.append([to("a", noted("a2"), expected=1), to("b", noted("b1"), expected=7)])
        assert len(await store.read_stream("a")) == 2
        assert len(await store.read_stream("b")) == 1
        assert store.head == 4

    async def test_a_conflict_leaves_its_neighbours_alone(self, store: EventStore) -> None:
        appends = [store.append([to(f"s-{n}", noted("x"), expected=Expected.NONE if n % 2 else 9)]) for n in range(40)]
        outcomes = await asyncio.gather(*appends, return_exceptions=True)
        assert [isinstance(outcome, RevisionConflictError) for outcome in outcomes] == [n % 2 == 0 for n in range(40)]
        assert store.head == 21

    async def test_one_winner_for_a_revision(self, store: EventStore) -> None:
        await store.append([to("s", noted("first"))])
        appends = [store.append([to("s", noted(str(n)), expected=0)]) for n in range(20)]
        outcomes = await asyncio.gather(*appends, return_exceptions=True)
        assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 1
        assert len(await store.read_stream("s")) == 2

    async def test_a_repeated_request_gets_the_first_answer(self, store: EventStore) -> None:
        assert await store.find_request(request("r")) is None
        first = await store.append([to("a", noted("1")), to("b", noted("2"))], request("r"))
        await store.append([to("a", noted("3"))])
        again = await store.append([to("a", noted("1")), to("b", noted("2"))], request("r"))
        assert again.repeated
        assert list(again.events) == list(first.events)
        found = await store.find_request(request("r"))
        assert found is not None and found.repeated and list(found.events) == list(first.events)
        assert store.head == 4

    async def test_a_request_id_with_another_body_is_refused(self, store: EventStore) -> None:
        await store.append([to("a", noted("1"))], request("r"))
        with pytest.raises(RequestIdReusedError):
            await store.append([to("a", noted("1"))], request("r", b"other"))
        with pytest.raises(RequestIdReusedError):
            await store.find_request(request("r", b"other"))
        other_actor = await store.append([to("a", noted("1"))], request("r", b"other", actor="somebody"))
        assert not other_actor.repeated

    async def test_a_request_repeated_at_once(self, store: EventStore) -> None:
        appends = [store.append([to("a", noted("1"), expected=Expected.NONE)], request("r")) for _ in range(10)]
        results = await asyncio.gather(*appends)
        assert sum(not result.repeated for result in results) == 1
        assert len({tuple(result.events) for result in results}) == 1
        assert store.head == 2

    async def test_a_request_that_was_refused_may_come_again(self, store: EventStore) -> None:
        with pytest.raises(RevisionConflictError):
            await store.append([to("a", noted("1"), expected=5)], request("r"))
        result = await store.append([to("a", noted("1"), expected=Expected.NONE)], request("r"))
        assert not result.repeated

    async def test_the_requests_that_were_answered(self, store: EventStore) -> None:
        names = [(actor, name) for actor in ("Zoe", "amélie", "ß") for name in ("1", "A", "a", "é")]
        for actor, name in reversed(names):
            await store.append([to("a", noted(name)), to("b", noted(name))], request(name, actor=actor))
        await store.append([], request("without events"))
        upto = store.head
        await store.append([to("a", noted("late"))], request("late"))
        pages = [page async for page in store.requests(upto)]
        assert all(pages)
        records = [record for page in pages for record in page]
        told = [(record.request.actor, record.request.request_id) for record in records]
        assert told == sorted([*names, ("tester", "without events")])
        by_name = {(r.request.actor, r.request.request_id): r for r in records}
        first = by_name["ß", "é"]
        assert (first.request, first.first_position, first.last_position) == (request("é", actor="ß"), 2, 3)
        empty = by_name["tester", "without events"]
        assert (empty.first_position, empty.last_position) == (upto + 1, upto)

    async def test_many_requests(self, store: EventStore) -> None:
        await asyncio.gather(*(store.append([], request(f"r{number:05}")) for number in range(2_500)))
        records = [record async for page in store.requests(store.head) for record in page]
        assert [record.request.request_id for record in records] == [f"r{number:05}" for number in range(2_500)]

    async def test_a_request_without_events(self, store: EventStore) -> None:
        assert (await store.append([], request("r"))).events == []
        await store.append([to("a", noted("1"))])
        again = await store.append([], request("r"))
        assert again.repeated and list(again.events) == []

    async def test_a_cancelled_caller_still_appends_once(self, store: EventStore) -> None:
        appending = asyncio.create_task(store.append([to("a", noted("1"))], request("r")))
        await asyncio.sleep(0)
        appending.cancel()
        await asyncio.wait({appending})
        again = await store.append([to("a", noted("1"))], request("r"))
        assert len(again.events) == 1
        assert len(await store.read_stream("a")) == 1

    async def test_limits(self, store: EventStore) -> None:
        largest = NewEvent("test.noted.v1", bytes(MAX_PAYLOAD_BYTES), "tester")
        assert len((await store.append([to("a", largest)])).events[0].payload) == MAX_PAYLOAD_BYTES
        with pytest.raises(EventTooLargeError):
            await store.append([to("a", noted("x"), NewEvent("test.noted.v1", bytes(MAX_PAYLOAD_BYTES + 1), "tester"))])
        assert store.head == 2

    @pytest.mark.parametrize(
        ("stream", "event"),
        [
            ("", noted("x")),
            ("nul\0", noted("x")),
            ("a", NewEvent("", b"", "tester")),
            ("a", NewEvent("test.noted.v1", b"", "")),
            ("a", noted("x", reason="half a \ud800 character")),
        ],
    )
    async def test_what_no_store_can_hold(self, store: EventStore, stream: str, event: NewEvent) -> None:
        with pytest.raises(InvalidEventError):
            await store.append([to(stream, event)])
        assert store.head == 1

    async def test_a_request_id_that_no_store_can_hold(self, store: EventStore) -> None:
        with pytest.raises(InvalidEventError):
            await store.append([to("a", noted("1"))], request("nul\0"))
        assert await store.find_request(request("nul\0")) is None
        assert store.head == 1

    async def test_a_fence_lets_only_the_holder_append(self, store: EventStore) -> None:
        lease = await store.leases.acquire("work", "one", 60)
        assert lease is not None
        await store.append([to("a", noted("1"))], fence=lease.fence)
        await store.leases.release(lease)
        with pytest.raises(LeaseLostError):
            await store.append([to("a", noted("2"))], fence=lease.fence)
        successor = await store.leases.acquire("work", "two", 60)
        assert successor is not None
        neighbours = await asyncio.gather(
            store.append([to("a", noted("3"))], fence=lease.fence),
            store.append([to("a", noted("4"))], fence=successor.fence),
            store.append([to("a", noted("5"))]),
            return_exceptions=True,
        )
        assert [isinstance(outcome, LeaseLostError) for outcome in neighbours] == [True, False, False]
        assert len(await store.read_stream("a")) == 3

    async def test_a_fence_refuses_once_the_time_is_over(self, store: EventStore) -> None:
        lease = await store.leases.acquire("work", "one", 0.05)
        assert lease is not None
        async with asyncio.timeout(30):
            while await store.leases.holder("work") is not None:
                await asyncio.sleep(0.01)
        with pytest.raises(LeaseLostError):
            await store.append([to("a", noted("1"))], fence=lease.fence)
        assert store.head == 1

    async def test_a_recorded_request_is_answered_after_the_lease(self, store: EventStore) -> None:
        lease = await store.leases.acquire("work", "one", 60)
        assert lease is not None
        first = await store.append([to("a", noted("1"))], request("r"), lease.fence)
        await store.leases.release(lease)
        again = await store.append([to("a", noted("1"))], request("r"), lease.fence)
        assert again.repeated and list(again.events) == list(first.events)
        with pytest.raises(LeaseLostError):
            await store.append([to("a", noted("2"))], request("s"), lease.fence)

    async def test_reading_filters(self, store: EventStore) -> None:
        for number in range(30):
            await store.append([to(f"job-{number % 3}", noted(str(number)), counted(number))])
        everything = await collect(store.read())
        assert [event.position for event in everything] == list(range(1, 62))
        assert await collect(store.read(10, upto=20)) == everything[10:20]
        assert await collect(store.read(10, limit=5)) == everything[10:15]
        assert await collect(store.read(61)) == []
        job = [event for event in everything if event.stream == "job-1"]
        assert await collect(store.read(stream="job-1")) == job
        assert await collect(store.read(job[3].position, stream="job-1", limit=4)) == job[4:8]
        jobs = [event for event in everything if event.stream.startswith("job-")]
        assert await collect(store.read(stream_prefix="job-")) == jobs
        assert await collect(store.read(stream_prefix="job-", types=["test.counted.v1"], after=4)) == [
            event for event in jobs if event.type == "test.counted.v1" and event.position > 4
        ]
        assert await collect(store.read(stream_prefix="%")) == []
        # What no event can have matches none.
        assert await collect(store.read(stream="job-1\0")) == []
        assert await collect(store.read(stream_prefix="job-\0")) == []
        assert await collect(store.read(types=["\0"])) == []

    async def test_reading_backwards(self, store: EventStore) -> None:
        for number in range(20):
            await store.append([to(f"job-{number % 2}", counted(number))])
        everything = await collect(store.read())
        assert await collect(store.read_backwards()) == everything[::-1]
        assert await collect(store.read_backwards(10, limit=3)) == everything[8:5:-1]
        assert await collect(store.read_backwards(stream="job-1", limit=2)) == everything[20:17:-2]
        assert await collect(store.read_backwards(types=["log.store_created.v1"])) == everything[:1]

    async def test_reading_many_pages(self, store: EventStore) -> None:
        for _ in range(25):
            await store.append([to("s", *(counted(number) for number in range(100)))])
        pages = [page async for page in store.read()]
        assert all(pages) and len(pages) > 2
        assert [event.position for page in pages for event in page] == list(range(1, 2502))
        assert len(await collect(store.read_backwards(stream="s"))) == 2500
        assert verify_chain(store.store_id, itertools.chain.from_iterable(pages)) is None

    async def test_a_stream_as_of_a_position(self, store: EventStore) -> None:
        await store.append([to("s", noted("0"), noted("1"))])
        await store.append([to("t", noted("0"))])
        await store.append([to("s", noted("2"))])
        assert [event.revision for event in await store.read_stream("s", upto_position=4)] == [0, 1]
        assert [event.revision for event in await store.read_stream("s", upto_position=2)] == [0]

    async def test_the_position_at_a_time(self, store: EventStore, clock: SteppingClock) -> None:
        start = clock.now
        for _ in range(10):
            clock.now += 100
            await store.append([to("s", noted("a"), noted("b"))])
        assert await store.last_position_at(start - 1) == 0
        assert await store.last_position_at(start) == 1
        assert await store.last_position_at(start + 100) == 3
        assert await store.last_position_at(start + 599) == 11
        assert await store.last_position_at(start + 10_000) == 21

    async def test_recorded_times_never_fall(self, store: EventStore, clock: SteppingClock) -> None:
        await store.append([to("s", noted("a"))])
        clock.now -= 5_000_000_000
        await store.append([to("s", noted("b"))])
        events = await collect(store.read())
        assert [event.recorded_ns for event in events] == sorted(event.recorded_ns for event in events)
        assert [event.event_id for event in events] == sorted(event.event_id for event in events)

    async def test_waiting_for_the_head(self, store: EventStore) -> None:
        assert await store.wait_beyond(0) == 1
        waiting = [asyncio.create_task(store.wait_beyond(1)) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await store.append([to("s", noted("a"))])
        assert await asyncio.gather(*waiting[1:]) == [2, 2]

    async def test_an_acknowledged_append_can_be_read(self, store: EventStore) -> None:
        async def write_and_read(number: int) -> None:
            (event,) = (await store.append([to(f"s-{number}", noted("x"))])).events
            assert store.head >= event.position
            assert await store.read_stream(f"s-{number}") == [event]

        await asyncio.gather(*(write_and_read(number) for number in range(50)))

    async def test_verification(self, store: EventStore) -> None:
        result = await store.append([to("s", *(counted(number) for number in range(50)))])
        verdict = await verify_log(store)
        assert (verdict.first_break, verdict.events_checked, verdict.head_position) == (None, 51, 51)
        assert verdict.head_hash == result.events[-1].hash
        assert (await verify_log(store, 10, 20)).events_checked == 11
        texts = ("", "Ω", "𝒳 ", "e\u0301\u200b", "'\\\"; --\n\t", "x" * 5_000)
        events = [
            NewEvent("test.noted.v1", bytes([number]) * number * 999, "ann", number % 2 == 0, text, text, text, text)
            for number, text in enumerate(texts)
        ]
        await store.append([to("Ω ' \\ %", *events)])
        assert (await verify_log(store, 51)).first_break is None
        recorded = await store.read_stream("Ω ' \\ %")
        assert [(event.reason, event.causation_id) for event in recorded] == [(text, text) for text in texts]
        with pytest.raises(PositionBeyondHeadError):
            await verify_log(store, 1, 58)

    async def test_a_closed_store_refuses(self, store: EventStore) -> None:
        waiting = asyncio.create_task(store.wait_beyond(1))
        await asyncio.sleep(0)
        await store.close()
        with pytest.raises(LogClosedError):
            await waiting
        with pytest.raises(LogClosedError):
            await store.append([to("s", noted("a"))])
        await store.close()
