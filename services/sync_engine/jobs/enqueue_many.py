"""EnqueueRuns: many runs, each as EnqueueRun does, answered in order; one that can't be queued stops no other."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace

from libs.event_log.store import RequestKey
from libs.service_kit.errors import LabferryError
from services.sync_engine.engine_log import Cause
from services.sync_engine.errors import as_labferry_error
from services.sync_engine.jobs.enqueue import Enqueue, Enqueued

_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class RunAnswer:
    """What became of one run: one of `enqueued` and `error`."""

    run: str
    enqueued: Enqueued | None = None
    error: LabferryError | None = None


class EnqueueMany:
    """The command. A few runs are walked at the same time; a slow reader lets no more be begun."""

    def __init__(self, enqueue: Enqueue) -> None:
        self._enqueue = enqueue

    async def run(
        self, runs: Sequence[str], cause: Cause, request: RequestKey | None
    ) -> AsyncGenerator[RunAnswer, None]:
        """One answer a run, in order. Defects are raised."""
        begun: deque[asyncio.Task[RunAnswer]] = deque()
        left = iter(enumerate(runs))
        try:
            while True:
                while len(begun) < _AT_ONCE and (one := next(left, None)) is not None:
                    number, run = one
                    begun.append(asyncio.create_task(self._one(run, cause, _part(request, number))))
                if not begun:
                    return
                yield await begun.popleft()
        finally:
            for task in begun:
                task.cancel()
            if begun:
                await asyncio.wait(begun)

    async def _one(self, run: str, cause: Cause, request: RequestKey | None) -> RunAnswer:
        try:
            return RunAnswer(run, enqueued=await self._enqueue.run(run, cause, request))
        except Exception as error:
            known = error if isinstance(error, LabferryError) else as_labferry_error(error)
            if known is None:
                raise
            return RunAnswer(run, error=known)


def _part(request: RequestKey | None, number: int) -> RequestKey | None:
    """Each run's own key: a repeat of the whole request finds what each part answered."""
    return None if request is None else replace(request, request_id=f"{request.request_id}#{number}")
