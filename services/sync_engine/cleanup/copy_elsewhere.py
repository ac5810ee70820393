"""Whether each copy is really elsewhere: what is put beside it must not appear in the run on this machine, nor beside
another copy, which would be the same one by another way. Nor may a part of the run be mounted from elsewhere, which
could be the copy's.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from functools import partial

from libs.run_tree.beneath import folder_beneath, is_taken_beneath
from libs.run_tree.manifest import CACHE_FOLDER
from libs.run_tree.mounts_below import mounts_below
from services.sync_engine.cleanup.interlocks import Interlock, InterlockName
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.runs.location import LocatedRun
from services.sync_engine.transfer.destination import Destination
from services.sync_engine.transfer.mark import new_mark
from services.sync_engine.transfer.system_error import shown
from services.sync_engine.transfer.transfer_control import StopReason, TransferControl
from services.sync_engine.transfer.transport import TransferError

_MOST_SECONDS = 60.0


async def look_whether_copies_are_elsewhere(bench: Workbench, located: LocatedRun) -> Interlock:
    """The last interlock. A destination that can't be marked doesn't hold it."""
    places = bench.destinations[located.path.equipment_id]
    # One after the other: whoever marks a place removes all other marks there, and two of them may be one.
    found = [await _look(bench, located, place, [other for other in places if other is not place]) for place in places]
    mounted = await bench.threads.run(partial(_what_is_mounted, located))
    wrong = [text for text in (mounted, *found) if text]
    return Interlock(
        InterlockName.COPY_IS_ELSEWHERE,
        not wrong,
        "; ".join(wrong) or "nothing that was put beside a copy appeared in the run or beside another copy",
    )


async def _look(bench: Workbench, located: LocatedRun, place: Destination, others: Sequence[Destination]) -> str:
    """What is wrong, one plain sentence; empty: the copy is elsewhere."""
    control = TransferControl()
    try:
        async with asyncio.timeout(_MOST_SECONDS):
            return await bench.threads.run(partial(_what_is_wrong, located, place, others, control))
    except TimeoutError:
        return f"{place.name} took no mark within {_MOST_SECONDS:.0f} s, or another destination didn't say if it has it"
    except (TransferError, OSError) as error:
        return f"{place.name} can't be marked ({error})"
    finally:
        control.stop(StopReason.STALLED)


def _what_is_mounted(located: LocatedRun) -> str:
    """As `_look`."""
    try:
        with folder_beneath(located.folder) as folder:
            elsewhere = mounts_below(folder)
    except OSError as error:
        return f"{located.folder} can't be looked at ({error})"
    return f"something is mounted in the run, at {shown(elsewhere[0])}: it may lie elsewhere" if elsewhere else ""


def _what_is_wrong(
    located: LocatedRun, place: Destination, others: Sequence[Destination], control: TransferControl
) -> str:
    mark = new_mark()
    with place.transport.marked(located.path.below_equipment, mark):
        # By its name: a listing may be a minute old on a network file system, a name nobody ever asked for never is.
        if is_taken_beneath(located.folder / os.fsdecode(CACHE_FOLDER) / os.fsdecode(mark)):
            return f"the copy at {place.name} is the run itself: what was put there appeared in {located.folder}"
        for other in others:
            if _has_mark(located, other, mark, control):
                return (
                    f"the copies at {place.name} and {other.name} are one: what was put at {place.name} appeared at"
                    f" {other.name}"
                )
    return ""


def _has_mark(located: LocatedRun, place: Destination, mark: bytes, control: TransferControl) -> bool:
    """Of two ways to one place it is asked by both: where one is mounted, its listing may be old."""
    cache = located.path.below_equipment / os.fsdecode(CACHE_FOLDER)
    try:
        return bool(place.transport.digests(cache, [mark], control=control))
    except TransferError as error:
        raise TransferError(error.kind, f"{place.name} doesn't say if it has the mark: {error.message}") from error
