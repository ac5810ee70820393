"""A process that dies in the middle of putting rebuilt read models in place: `python -m … FOLDER MOMENT`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from enum import StrEnum
from pathlib import Path

from libs.event_log import projection, read_model
from libs.event_log.projection import ProjectionRunner
from libs.event_log.sqlite_store import SqliteEventStore
from tests.integration.event_log.counting import Notes, SumPerStream
from tests.integration.event_log.events import EVENT_TYPES, counted, noted, to

EVENTS = 500


class Moment(StrEnum):
    REPLAYED = "replayed"
    OLD_FILE_GONE = "old_file_gone"
    SWAPPED = "swapped"


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _dying_at(moment: Moment) -> None:
    def put_in_place(source: Path, target: Path) -> None:
        if moment is Moment.OLD_FILE_GONE:
            read_model.remove_database(target)
        elif moment is Moment.SWAPPED:
            read_model.put_in_place(source, target)
        _die()

    projection.put_in_place = put_in_place


async def _rebuild(folder: Path) -> None:
    store = await SqliteEventStore.open(folder / "events.sqlite3", service="test", version="0.0.0")
    runner = ProjectionRunner(store, EVENT_TYPES, folder / "read_models.sqlite3", (SumPerStream(), Notes()))
    await runner.start()
    for number in range(EVENTS):
        await store.append([to("a", counted(1), noted(str(number)))])
    await runner.reached(store.head)
    await runner.rebuild(dry_run=False)


if __name__ == "__main__":
    _dying_at(Moment(sys.argv[2]))
    asyncio.run(_rebuild(Path(sys.argv[1])))
