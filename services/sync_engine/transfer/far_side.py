"""What a destination behind a tool can do, in the small steps of which every such transport is made.

A session is opened for one piece of work and used by one thread. Paths are bytes with "/", below the equipment's
folder at the destination, unless they are said to lie in a run. Every failure is a TransferError; a step ends with
TransferStoppedError as soon as the work's control says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from services.sync_engine.transfer.bandwidth import SharedBandwidth
from services.sync_engine.transfer.sealed_file import SealedFile
from services.sync_engine.transfer.system_error import shown
from services.sync_engine.transfer.tools import Toolbox
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import (
    CopiedFile,
    EntryKind,
    FailureKind,
    SourceEntry,
    TargetTraits,
    TransferError,
    UnreadableFile,
)


class FarName(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a name stands for there; `kind` None: a pipe or the like."""

    path: bytes
    kind: EntryKind | None
    size: int
    link_target: bytes | None = None


@dataclass(slots=True)
class FarDigests:
    """SHA-256 by path. `oversize`: files that would have to be downloaded, larger than that may be. `unreadable`:
    files that the far end can't read although it reads others."""

    found: dict[bytes, str] = field(default_factory=dict)
    oversize: list[bytes] = field(default_factory=list)
    unreadable: list[UnreadableFile] = field(default_factory=list)

    def readable(self) -> dict[bytes, str]:
        """`found`, for those to whom a file that can't be read isn't one that isn't there. TransferError."""
        for file in self.unreadable:
            raise TransferError(
                FailureKind.NETWORK, f"reading back {shown(file.path)} at the destination: {file.words}", [file.path]
            )
        return self.found


@dataclass(frozen=True, slots=True)
class NotLanded:
    """Files of a batch that didn't get their names, and the failure that it is where no other file has the name."""

    paths: tuple[bytes, ...]
    error: TransferError


class FarSide(Protocol):
    """One session with a destination. `method`, `host` and `note` describe how it hashes."""

    method: str
    host: str
    note: str

    @property
    def dates_folders(self) -> bool:
        """Whether it gives folders their times; where it doesn't, one that is there needs nothing more."""
        ...

    def has_incoming(self) -> bool | None:
        """Whether the folder in which all attempts work is there: it stays, so its absence tells that this is another
        folder than before. None where a destination keeps no folders."""
        ...

    def check(self) -> None:
        """Returns when the destination can be written to."""

    def traits(self, folder: bytes) -> TargetTraits:
        """What it does with names, tried in `folder`, which is the attempt's own and is removed."""
        ...

    def free_bytes(self) -> int | None:
        """None when it can't be known."""
        ...

    def names(self, folder: bytes) -> Sequence[FarName]:
        """Every name below the folder, relative to it, sorted by path; empty when there is no such folder. No symlink
        is followed, and DESTINATION_FILE_DIFFERS when the folder itself lies behind one."""
        ...

    def digests(
        self, folder: bytes, files: Mapping[bytes, int], max_stream_bytes: int, hashed: Callable[[bytes, int], None]
    ) -> FarDigests:
        """SHA-256 of files of a folder, given with their sizes there, no more than memory holds with ease. `hashed`
        hears each with its size."""
        ...

    def holds_any(self, folder: bytes, paths: Sequence[bytes]) -> bool:
        """Whether any of these few files or symlinks of a folder is there, without a listing."""
        ...

    def unlisted(self, folder: bytes, paths: Sequence[bytes]) -> frozenset[bytes]:
        """Which of these paths of a folder, which `names` doesn't have, are symlinks to files all the same; empty where
        `names` has symlinks too, and where nobody can tell."""
        ...

    def send(
        self, source: bytes, batch: bytes, entries: Sequence[SourceEntry], moved: Callable[[int, bytes], None]
    ) -> None:
        """Copies files and symlinks of the run's folder `source` whole and durable into the folder `batch`. What
        arrived there before, unchanged, is not sent again. `moved` hears bytes and the file in work."""

    def land(
        self,
        batch: bytes,
        target: bytes,
        files: Sequence[CopiedFile],
        spoiled: Sequence[bytes],
        staying: AbstractSet[bytes],
    ) -> NotLanded | None:
        """Gives the batch's files their names in the run's folder `target`, but for the `spoiled` ones; never in the
        place of anything, but for what `move` let stay."""
        ...

    def settle_folders(self, target: bytes, folders: Sequence[SourceEntry]) -> None:
        """Makes the run's folder and those in it, empty ones too, and gives them their times; when it returns they are
        known to be there."""

    def move(self, pairs: Sequence[tuple[bytes, bytes]], guard: bytes, *, replaced: bool) -> bool:
        """Moves files; the new names must be free. `guard` is a folder of its own in the incoming one: whoever takes
        the work over removes it first, and what outlives its engine moves nothing any more. Where a move is a copy and
        a deletion, what is to be `replaced` is copied, and stays. Whether the names are free now."""
        ...

    def seal(self, files: Sequence[SealedFile], incoming: bytes) -> None:
        """Puts each file in its place, replacing what is there as the backend can; `incoming` is a folder of its
        own for this."""

    def children(self, folder: bytes) -> Sequence[bytes]:
        """Names of the folders in a folder, those with unfinished uploads alone too; none when it isn't there."""
        ...

    def remove(self, folder: bytes) -> None:
        """Removes a folder with all that is in it, if it is there, and what uploads into it left unfinished."""

    def remove_files(self, paths: Sequence[bytes]) -> None:
        """Removes files; one that isn't there any more is passed over."""


class FarPlace(Protocol):
    """A destination of which sessions can be opened. `tools` are what it calls; `bandwidth` is what its sessions share
    while they send."""

    tools: Toolbox
    bandwidth: SharedBandwidth

    def open(self, control: TransferControl, most_seconds: float | None = None) -> AbstractContextManager[FarSide]:
        """A session. `most_seconds`: no step may take longer."""
        ...
