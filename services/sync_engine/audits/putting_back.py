"""Puts files of a copy back so that one whose place can't be cleared, or that can't be sent, keeps no other away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from services.sync_engine.transfer.system_error import shown
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import FailureKind, SourceEntry, TransferError

_OF_THE_DESTINATION = frozenset(
    {
        FailureKind.AUTHENTICATION,
        FailureKind.DESTINATION_FULL,
        FailureKind.INTERNAL,
        FailureKind.SECRET_UNAVAILABLE,
    }
)
"""What would befall each file by itself as well."""
_MOST_IN_A_ROW = 200
"""So many files refused by themselves, and none put back meanwhile: then what fails together isn't taken apart any
more, for each try may take seconds."""


@dataclass(frozen=True, slots=True)
class NotPutBack:
    """What stays as it is, and why."""

    path: bytes
    problem: str


@dataclass(frozen=True, slots=True)
class Behind:
    """`free`: files that nothing keeps from their folders. `blocked`: names that stand in the place of such folders."""

    free: Sequence[SourceEntry]
    blocked: Sequence[NotPutBack]


def behind_others(files: Sequence[SourceEntry], not_folders: Sequence[bytes]) -> Behind:
    """Tells files apart by whether one of their folders is among the names of the copy that are no folders."""
    taken, kept_away = frozenset(not_folders), Counter[bytes]()
    free = []
    for file in files:
        above = next((folder for folder in folders_of(file.path) if folder in taken), None)
        if above is None:
            free.append(file)
        else:
            kept_away[above] += 1
    return Behind(
        free,
        [
            NotPutBack(above, f"{shown(above)} is no folder at the destination: {count} files in it are not put back")
            for above, count in sorted(kept_away.items())
        ],
    )


def folders_of(path: bytes) -> Iterator[bytes]:
    """Those that a file of a run lies in, the outermost first."""
    parts = path.split(b"/")[:-1]
    for number in range(len(parts)):
        yield b"/".join(parts[: number + 1])


class PuttingBack:
    """Of one copy. `set_aside` and `send` are the transport's, for some of the files; `check` raises when the
    destination is away."""

    def __init__(
        self,
        set_aside: Callable[[Sequence[SourceEntry]], None],
        send: Callable[[Sequence[SourceEntry]], None],
        check: Callable[[], None],
        control: TransferControl,
        refused: list[NotPutBack],
    ) -> None:
        """What can't be put back is added to `refused`."""
        self._set_aside = set_aside
        self._send = send
        self._check = check
        self._control = control
        self._refused = refused
        self._refused_in_a_row = 0

    def put_back(self, files: Sequence[SourceEntry]) -> None:
        """All together; by halves when that fails. TransferError when it is the destination that fails."""
        self._put_back(files, cleared=False)

    def _put_back(self, files: Sequence[SourceEntry], *, cleared: bool) -> None:
        if not files:
            return
        self._control.raise_before_file()
        try:
            if not cleared:
                self._set_aside(files)
                # What lies there from now on may be a file that was put back.
                cleared = True
            self._send(files)
            self._refused_in_a_row = 0
            return
        except TransferError as error:
            if error.kind in _OF_THE_DESTINATION:
                raise
            failure = error
        self._control.look()
        self._check()
        if len(files) == 1 or self._refused_in_a_row >= _MOST_IN_A_ROW:
            self._refused_in_a_row += 1
            more = f" (and {len(files) - 1} more files)" if len(files) > 1 else ""
            self._refused.append(NotPutBack(files[0].path, f"{failure}{more}"))
            return
        half = len(files) // 2
        self._put_back(files[:half], cleared=cleared)
        self._put_back(files[half:], cleared=cleared)
