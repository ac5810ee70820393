"""A sync engine that dies by SIGKILL at one event: just before it is recorded, or right after, before anything else.

`death.json` beside the configuration says where: `type`, `side` ("before" or "after"), and the `count`-th time that it
comes in one of `streams`, or in the stream of a job of `run`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labferry.events.v1 import job_events_pb2
from libs.event_log.sqlite_store import SqliteEventStore
from libs.event_log.store import AppendResult, StreamAppend
from libs.service_kit.identity import ServiceName
from libs.service_kit.run import run_service
from services.sync_engine.app import compose
from services.sync_engine.errors import as_labferry_error
from services.sync_engine.event_types import EVENT_TYPES, job_stream

_QUEUED = EVENT_TYPES.new_event(job_events_pb2.JobQueued(), actor="").type


class Death:
    """Where this process ends."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.side = plan["side"]
        self._type = plan["type"]
        self.left = plan["count"]
        self._run = plan["run"]
        self._streams = set(plan["streams"])

    def in_these(self, appends: Sequence[StreamAppend]) -> int:
        """How many of its events they hold."""
        found = 0
        for append in appends:
            for event in append.events:
                if event.type == _QUEUED:
                    queued = job_events_pb2.JobQueued.FromString(event.payload)
                    if queued.run == self._run:
                        self._streams.add(job_stream(queued.job_id))
                if event.type == self._type and append.stream in self._streams:
                    found += 1
        return found


def main() -> int:
    config = Path(sys.argv[sys.argv.index("--config") + 1])
    death = Death(json.loads(config.with_name("death.json").read_text(encoding="utf-8")))
    append = SqliteEventStore.append

    async def fatal(store: SqliteEventStore, appends: Sequence[StreamAppend], *rest: Any) -> AppendResult:
        found = death.in_these(appends)
        if found and death.side == "before" and death.left <= found:
            os.kill(os.getpid(), signal.SIGKILL)
        # What is refused, since somebody else was quicker, is decided anew and comes again.
        result = await append(store, appends, *rest)
        death.left -= found
        if found and death.left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    SqliteEventStore.append = fatal  # type: ignore[method-assign]
    return run_service(ServiceName.SYNC_ENGINE, compose, as_labferry_error)


if __name__ == "__main__":
    sys.exit(main())
