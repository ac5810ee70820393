"""Whether each copy is really elsewhere: what is put beside it must not appear in the run on this machine."""

from __future__ import annotations

import asyncio
import os
from functools import partial

from libs.run_tree.beneath import is_taken_beneath
from libs.run_tree.manifest import CACHE_FOLDER
from services.sync_engine.cleanup.interlocks import Interlock, InterlockName
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.runs.location import LocatedRun
from services.sync_engine.transfer.destination import Destination
from services.sync_engine.transfer.mark import new_mark
from services.sync_engine.transfer.transport import TransferError

_MOST_SECONDS = 60.0


async def look_whether_copies_are_elsewhere(bench: Workbench, located: LocatedRun) -> Interlock:
    """The last interlock. A destination that can't be marked doesn't hold it."""
    places = bench.destinations[located.path.equipment_id]
    found = await asyncio.gather(*(_look(bench, located, place) for place in places))
    wrong = [text for text in found if text]
    return Interlock(
        InterlockName.COPY_IS_ELSEWHERE,
        not wrong,
        "; ".join(wrong) or "nothing that was put beside a copy appeared in the run",
    )


async def _look(bench: Workbench, located: LocatedRun, place: Destination) -> str:
    """What is wrong, one plain sentence; empty: the copy is elsewhere."""
    try:
        async with asyncio.timeout(_MOST_SECONDS):
            is_source = await bench.threads.run(partial(_appears_here, located, place))
    except TimeoutError:
        return f"{place.name} took no mark within {_MOST_SECONDS:.0f} s"
    except (TransferError, OSError) as error:
        return f"{place.name} can't be marked ({error})"
    if not is_source:
        return ""
    return f"the copy at {place.name} is the run itself: what was put there appeared in {located.folder}"


def _appears_here(located: LocatedRun, place: Destination) -> bool:
    mark = new_mark()
    with place.transport.marked(located.path.below_equipment, mark):
        # By its name: a listing may be a minute old on a network file system, a name nobody ever asked for never is.
        return is_taken_beneath(located.folder / os.fsdecode(CACHE_FOLDER) / os.fsdecode(mark))
