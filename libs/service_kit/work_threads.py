"""Threads for blocking work that may hang for ever: a dead network filesystem holds up nothing but its own callers."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")


class _Worker:
    """One daemon thread: the process may end while its work hangs in the kernel."""

    def __init__(self, name: str) -> None:
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def give(self, work: Callable[[], None] | None) -> None:
        """`None` ends the thread."""
        self._work.put(work)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()


class WorkThreads:
    """As many threads as there is work, so that nothing queues behind what hangs; `keep` idle ones are kept for more.

    Lives on one event loop.
    """

    def __init__(self, name: str, keep: int = 8) -> None:
        self._name = name
        self._keep = keep
        self._idle: list[_Worker] = []
        self._closed = False

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` gives or raises; it sees the caller's context variables.

        A caller that is cancelled leaves the work going on by itself.
        """
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[T] = loop.create_future()
        worker = self._idle.pop() if self._idle else _Worker(self._name)

        def tell(result: T | None, error: BaseException | None) -> None:
            self._done(worker)
            if outcome.cancelled():
                return
            if error is not None:
                outcome.set_exception(error)
            else:
                outcome.set_result(result)  # type: ignore[arg-type]

        def do() -> None:
            result: T | None = None
            failure: BaseException | None = None
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 -- given to the caller, whatever it is
                failure = error
            try:
                loop.call_soon_threadsafe(tell, result, failure)
            except RuntimeError:
                # The loop is closed: nobody waits for the outcome any more.
                return

        context = contextvars.copy_context()
        worker.give(lambda: context.run(do))
        return await outcome

    def close(self) -> None:
        """Ends the idle threads; those that hang are left to the end of the process."""
        self._closed = True
        for worker in self._idle:
            worker.give(None)
        self._idle.clear()

    def _done(self, worker: _Worker) -> None:
        if self._closed or len(self._idle) >= self._keep:
            worker.give(None)
        else:
            self._idle.append(worker)
