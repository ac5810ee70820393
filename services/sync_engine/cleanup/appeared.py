"""What lies in a cleaned run's folder again, and what that is: something new, or what was proven there. Blocking."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from services.sync_engine.cleanup.deletion import Remaining
from services.sync_engine.cleanup.local_files import as_proven, in_cache, proven_everywhere
from services.sync_engine.cleanup.remaining import MOST_REMAINING, RemainingFiles
from services.sync_engine.runs.location import LocatedRun
from services.sync_engine.transfer.path_order import InStep
from services.sync_engine.transfer.source_file import SourceFiles
from services.sync_engine.transfer.source_tree import scan_run
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import CopiedFile, EntryKind, SourceEntry, TransferError

_APPEARED = "it appeared after the run was cleaned"
_NEW = f"{_APPEARED}; queueing the run brings it"
_ANOTHER = f"{_APPEARED}, and isn't what was proven under this name; queueing the run says what can be done about it"
_EQUAL = (
    f"{_APPEARED}, and equals what was proven at every destination: queueing the run has nothing to bring of it, and"
    " nothing here deletes it. Delete it by hand when nobody needs it here any more"
)


def what_appeared(
    located: LocatedRun, lists: Sequence[Sequence[CopiedFile]], wrong: Sequence[str], control: TransferControl
) -> RemainingFiles:
    """`lists`: what was proven, one a destination, each sorted by path; `wrong` are destinations whose copy was found
    wrong since. Of more files than are told none is hashed. TransferStoppedError."""
    left, source = RemainingFiles(), SourceFiles(os.fsencode(located.folder))
    proven = InStep(proven_everywhere(lists))
    equal = _EQUAL
    if wrong:
        where = " and ".join(wrong)
        equal = f"{_APPEARED}, and equals what was proven; the copy at {where} was found wrong since: keep it"

    def why(entry: SourceEntry) -> str:
        known = proven.at(entry.path)
        if known is None:
            return _NEW
        try:
            return _ANOTHER if as_proven(source, entry, known.copies, control) is None else equal
        except TransferError as error:
            return f"{_APPEARED}, and can't be read: {error.message}"

    def files() -> Iterator[Remaining]:
        found = (
            entry
            for entry in scan_run(located.folder, of_project=located.path.is_project)
            if entry.kind is not EntryKind.DIRECTORY and not in_cache(entry.path)
        )
        for number, entry in enumerate(found):
            control.look()
            yield Remaining(entry.path, why(entry) if number < MOST_REMAINING else _APPEARED)

    try:
        left.add(files())
    except TransferError as error:
        left.add([Remaining(b".", f"the run can't be looked at: {error.message}")])
    return left
