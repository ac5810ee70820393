"""A night's outage, in a loop whose time passes as fast as nothing happens: one prober, growing pauses."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, cast

import structlog

from libs.service_kit.work_threads import WorkThreads
from services.sync_engine.jobs.destination_watch import DestinationWatch
from services.sync_engine.jobs.failure import Failure
from services.sync_engine.transfer.destination import Destination
from services.sync_engine.transfer.transport import FailureKind, TransferError

T = TypeVar("T")
HOUR = 3600.0
BEGIN = datetime(2026, 4, 17, 22, 0, tzinfo=UTC)


class _Selector(selectors.SelectSelector):
    """Where the loop would sleep, its time goes on instead."""

    slept = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is not None:
            self.slept += timeout
        return ready


class _SwiftLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._swift = _Selector()
        super().__init__(self._swift)

    def time(self) -> float:
        return self._swift.slept


class _AtOnce(WorkThreads):
    """No thread's time passes beside the loop's."""

    async def run(self, work: Callable[[], T]) -> T:
        return work()


class _Nas:
    """A transport's `check`, which fails while it is down; when it was asked."""

    def __init__(self, back_at: float, kind: FailureKind = FailureKind.NETWORK) -> None:
        self.back_at = back_at
        self.kind = kind
        self.asked: list[float] = []

    def check(self) -> None:
        now = asyncio.get_running_loop().time()
        self.asked.append(now)
        if now < self.back_at:
            raise TransferError(self.kind, "Host is down")


def _in_swift_time(play: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=_SwiftLoop) as runner:
        runner.run(play)


def _watch(clock: Callable[[], datetime]) -> DestinationWatch:
    return DestinationWatch(_AtOnce("test"), clock, structlog.get_logger(), stall_seconds=300.0)


def _destination(nas: _Nas, name: str = "nas") -> Destination:
    return Destination(name, True, "mounted", cast(Any, nas))


def test_a_night_without_the_nas_is_probed_by_one_and_ever_less_often() -> None:
    async def night() -> None:
        loop = asyncio.get_running_loop()
        nas = _Nas(back_at=12 * HOUR)
        watch = _watch(lambda: BEGIN + timedelta(seconds=loop.time()))
        back: list[tuple[str, str, float]] = []
        watch.on_back(lambda equipment, name: back.append((equipment, name, loop.time())))
        down = Failure(FailureKind.NETWORK, "Host is down")
        # A thousand jobs find it down, at once and through the night: none of them asks by itself.
        assert await asyncio.gather(*(watch.look("E", _destination(nas)) for _ in range(1000))) == [down] * 1000
        assert len(nas.asked) == 1
        while not back:
            await asyncio.sleep(60)
            if not back:
                assert await watch.look("E", _destination(nas)) == down
                again = watch.next_probe("E", "nas")
                assert again is not None
                assert BEGIN + timedelta(seconds=loop.time()) <= again <= BEGIN + timedelta(seconds=loop.time() + 300)
        pauses = [later - sooner for sooner, later in zip(nas.asked, nas.asked[1:], strict=False)]
        assert pauses == sorted(pauses)
        assert (pauses[0], pauses[-1]) == (5.0, 300.0)
        assert len(nas.asked) < 12 * 12 + 20
        assert [(equipment, name) for equipment, name, _ in back] == [("E", "nas")]
        assert 12 * HOUR <= back[0][2] <= 12 * HOUR + 300
        assert watch.known_down("E", "nas") is None
        assert watch.next_probe("E", "nas") is None
        assert await watch.look("E", _destination(nas)) is None
        await watch.close()

    _in_swift_time(night())


def test_a_tool_that_breaks_while_it_asks_is_no_answer() -> None:
    async def hour() -> None:
        watch = _watch(lambda: BEGIN)
        nas = _Nas(back_at=HOUR, kind=FailureKind.TOOL_FAILED)
        back = asyncio.Event()
        watch.on_back(lambda equipment, name: back.set())
        assert await watch.look("E", _destination(nas)) == Failure(FailureKind.TOOL_FAILED, "Host is down")
        await back.wait()
        assert await watch.look("E", _destination(nas)) is None
        await watch.close()

    _in_swift_time(hour())


def test_the_wall_clock_changes_no_pause() -> None:
    async def night() -> None:
        jumps = iter(range(10_000))
        nas = _Nas(back_at=HOUR)
        # Each look at it finds the clock a day earlier, then a day later.
        watch = _watch(lambda: BEGIN + timedelta(days=(-1) ** next(jumps)))
        back = asyncio.Event()
        watch.on_back(lambda equipment, name: back.set())
        await watch.look("E", _destination(nas))
        await back.wait()
        pauses = [later - sooner for sooner, later in zip(nas.asked, nas.asked[1:], strict=False)]
        assert pauses == sorted(pauses)
        assert pauses[-1] == 300.0
        await watch.close()

    _in_swift_time(night())


def test_destinations_are_probed_each_by_itself() -> None:
    async def night() -> None:
        one, other = _Nas(back_at=100.0), _Nas(back_at=5000.0)
        watch = _watch(lambda: BEGIN)
        back: list[str] = []
        both = asyncio.Event()

        def heard(equipment: str, name: str) -> None:
            back.append(name)
            if len(back) == 2:
                both.set()

        watch.on_back(heard)
        await watch.look("E", _destination(one, "one"))
        await watch.look("E", _destination(other, "other"))
        await both.wait()
        assert back == ["one", "other"]
        await watch.close()

    _in_swift_time(night())


def test_the_watch_ends_although_a_destination_is_down() -> None:
    async def night() -> None:
        watch = _watch(lambda: BEGIN)
        await watch.look("E", _destination(_Nas(back_at=HOUR)))
        before = asyncio.all_tasks()
        await watch.close()
        assert len(before) == 2
        assert len(asyncio.all_tasks()) == 1

    _in_swift_time(night())
