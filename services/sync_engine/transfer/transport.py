"""What every way to a destination does: the contract between the job engine and its transports, and the data of both.

All of it is synchronous and called from worker threads. Paths are bytes, relative to the run, with "/": names that
aren't UTF-8 must survive. Lists of files are sorted by path and may be longer than memory is wide: they are gone
through, never gathered. Every failure of a transport is a `TransferError` whose kind decides what the job does next.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Protocol

import msgspec

from services.sync_engine.transfer.sealed_file import SealedFile
from services.sync_engine.transfer.transfer_control import TransferControl


class FailureKind(StrEnum):
    """Why an attempt did not succeed; the names of `labferry.sync.v1.FailureKind`."""

    NETWORK = "network"
    AUTHENTICATION = "authentication"
    CONFIGURATION = "configuration"
    HASH_MISMATCH = "hash_mismatch"
    LOCAL_FILE_VANISHED = "local_file_vanished"
    LOCAL_FILE_UNREADABLE = "local_file_unreadable"
    SOURCE_CHANGED = "source_changed"
    DESTINATION_FULL = "destination_full"
    DESTINATION_FILE_DIFFERS = "destination_file_differs"
    NOTHING_TO_VERIFY = "nothing_to_verify"
    NAME_NOT_POSSIBLE = "name_not_possible"
    SYMLINK_LEAVES_RUN = "symlink_leaves_run"
    CREATION_FILE = "creation_file"
    INTERNAL = "internal"
    SECRET_UNAVAILABLE = "secret_unavailable"
    TOOL_FAILED = "tool_failed"


@dataclass(frozen=True, slots=True)
class DifferingFile:
    """A file of which source and destination hold different contents. A hash is empty where no file is."""

    path: bytes
    there_sha256: str
    here_sha256: str


def bytes_unless_text(path: bytes) -> bytes:
    """The path's bytes where a text can't stand for them; else nothing."""
    return b"" if path.decode(errors="replace").encode() == path else path


class TransferError(Exception):
    """An attempt can't succeed as things are. `message` holds the system's own words; `paths` the files concerned."""

    def __init__(
        self,
        kind: FailureKind,
        message: str,
        paths: Sequence[bytes] = (),
        differing: Sequence[DifferingFile] = (),
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.paths: tuple[bytes, ...] = tuple(paths)
        self.differing: tuple[DifferingFile, ...] = tuple(differing)


class ProgressPhase(StrEnum):
    """What a transport is busy with; the names of `labferry.sync.v1.ProgressPhase`."""

    PLANNING = "planning"
    COPYING = "copying"
    VERIFYING = "verifying"
    SEALING = "sealing"


class Progress(Protocol):
    """Hears how far the work is. Called from several threads at once, often: implementations are quick and
    thread-safe.
    """

    def begin(self, phase: ProgressPhase, files_total: int, bytes_total: int) -> None:
        """A phase begins; counts start at 0. Files that needn't be sent are not in the totals."""

    def advance(self, files: int, nbytes: int, current: bytes) -> None:
        """So many more files were finished and bytes handled; `current` is the file in work, relative to the run."""


class EntryKind(StrEnum):
    """What a name in a run stands for."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"


class SourceEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One name of a run as a scan saw it. Sizes in bytes; of a symlink the size is its target's length."""

    path: bytes
    kind: EntryKind
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    link_target: bytes | None = None


class CopiedFile(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One file (or symlink) that a transport brought over: the source's stat signature and the hash of what was read.

    Of a symlink `sha256` is the hash of its target's text and `size` that text's length; it belongs in the list of
    files, not in the sha256sum manifest.
    """

    path: bytes
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    sha256: str
    kind: EntryKind = EntryKind.FILE
    link_target: bytes | None = None


@dataclass(frozen=True, slots=True)
class TargetTraits:
    """What a destination does with names and files, as probed there. `max_name_bytes` is for one segment; a segment in
    which `alters` finds something would arrive under another name; `alters_case`: so would one with capitals.
    `alters_unicode_forms`: a name can be listed in another form than it was given. `folds_sharp_s`: where a name in
    either case is one, those are too that are as long in one case alone, as "straße" and "STRASSE".

    None where it isn't known: `mtime_step_ns`, how far a time may be from what was set; `keeps_far_times`, whether that
    is so of times before 1970 and after 2106; `exclusive_rename` and `hard_links`, the ways to give a name that nothing
    has; `folder_sync`, whether folders can be synced by themselves.
    """

    case_sensitive: bool
    max_name_bytes: int
    keeps_unicode_forms: bool = True
    keeps_any_bytes: bool = True
    keeps_symlinks: bool = True
    keeps_empty_folders: bool = True
    alters: re.Pattern[str] | None = None
    alters_case: bool = False
    alters_unicode_forms: bool = False
    folds_sharp_s: bool = True
    mtime_step_ns: int | None = None
    keeps_far_times: bool | None = None
    exclusive_rename: bool | None = None
    hard_links: bool | None = None
    folder_sync: bool | None = None


class EvidenceGrade(StrEnum):
    """How well it is proven that a copy holds what the source held (ARCHITECTURE §4)."""

    E0 = "E0"
    E1 = "E1"
    E2 = "E2"
    E3 = "E3"
    E4 = "E4"
    E5 = "E5"


class FileEvidence(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What reading one file back gave."""

    path: bytes
    size: int
    sha256: str
    grade: EvidenceGrade
    kind: EntryKind = EntryKind.FILE


@dataclass(frozen=True, slots=True)
class UnreadableFile:
    """A file that a destination holds and can't read, while it reads others: its content is lost. `words`: the
    system's own."""

    path: bytes
    words: str


@dataclass(frozen=True, slots=True)
class VerifyOutcome:
    """What one reading back of a destination found. Counts are of regular files; symlinks appear in the lists and the
    evidence only, which is sorted by path. `unexpected` names files that are there and not expected: reported, not a
    failure. `oversize` could not be checked: they are larger than what may be downloaded to be read back. `unreadable`
    are among the `differing`."""

    expected: int
    hashed: int
    matched: int
    missing: tuple[bytes, ...]
    differing: tuple[bytes, ...]
    unexpected: tuple[bytes, ...]
    evidence: Sequence[FileEvidence]
    method: str
    grade: EvidenceGrade
    host: str
    note: str
    oversize: tuple[bytes, ...] = ()
    unreadable: tuple[UnreadableFile, ...] = ()

    @property
    def proven(self) -> bool:
        """expected = hashed = matched > 0, and nothing missing or differing."""
        return self.expected == self.hashed == self.matched > 0 and not self.missing and not self.differing


class Transport(Protocol):
    """One destination of one equipment. One object may serve several jobs at once.

    `target` is the run's path below the equipment's folder at the destination.
    """

    @property
    def traits(self) -> TargetTraits | None:
        """What the destination does with names; None before it was measured."""
        ...

    @property
    def tools(self) -> Mapping[str, str]:
        """Versions, by name, of the programs on this machine that it calls; empty until they were found."""
        ...

    def require_tools(self) -> None:
        """Returns when those programs are there and new enough; else TransferError CONFIGURATION names one."""

    def check(self) -> None:
        """Returns when the destination is reachable and usable; else TransferError with the reason."""

    def free_bytes(self) -> int | None:
        """Room at the destination, None when it can't be known. Raises TransferError when the destination is gone."""

    def copy(
        self,
        source: Path,
        entries: Sequence[SourceEntry],
        *,
        target: PurePosixPath,
        job_id: str,
        attempt: int,
        landed: Sequence[CopiedFile],
        before_landing: Callable[[Sequence[CopiedFile]], None],
        control: TransferControl,
        progress: Progress,
        cleared: AbstractSet[bytes] = frozenset(),
        kept: Sequence[CopiedFile] = (),
    ) -> Sequence[CopiedFile]:
        """Brings every entry to its final name, whole, never replacing what it finds there; sorted by path.

        `landed` is what the job's log says it moved, or was about to move, into place in earlier attempts; of one path
        the oldest first.
        `before_landing` is called from one thread at a time with each batch that lies whole and fsynced in the
        incoming folder, and returns when the caller has made the batch durable in its log; an exception from it ends
        the copy. What is there of the `cleared` paths doesn't count: `before_landing` moves it out of the way.
        `kept` is the rest of the run, which an earlier job brought: folders that hold some of it aren't empty. Files
        that needn't be sent again are in the answer too. Raises TransferError, TransferStoppedError.
        """
        ...

    def verify(
        self,
        target: PurePosixPath,
        expected: Sequence[CopiedFile],
        *,
        control: TransferControl,
        progress: Progress,
        max_stream_bytes: int = 0,
        whole: Sequence[CopiedFile] | None = None,
    ) -> VerifyOutcome:
        """Reads back what the destination holds and compares. A file that could not be checked is a TransferError, or
        `oversize`, never a pass. `whole`: everything that should be there, where `expected` is a part of it; only what
        isn't in it is unexpected. `max_stream_bytes` is the largest file to download where nothing else gives its hash,
        if that is more than what is configured."""
        ...

    def seal(self, files: Sequence[SealedFile], *, job_id: str, control: TransferControl) -> None:
        """Puts each file in its place, replacing atomically, fsyncs, reads it back and compares. What dead seals of the
        job left in the incoming folder is removed."""

    def marked(self, target: PurePosixPath, mark: bytes) -> AbstractContextManager[None]:
        """While the block runs, a file of the name `mark` lies in the cache folder of the run's copy. It is gone after
        it in any case, and so are those of engines that were killed; TransferError when one can't be put or removed."""
        ...

    def digests(
        self, target: PurePosixPath, paths: Sequence[bytes], *, control: TransferControl
    ) -> Mapping[bytes, str]:
        """SHA-256 of what lies at these paths of the run, read as for verification. What is no file, or isn't there, is
        left out."""
        ...

    def holds_any(self, target: PurePosixPath, paths: Sequence[bytes], *, control: TransferControl) -> bool:
        """Whether any of these names of the run, a few, is there, whatever it holds. Each is looked at by itself: the
        run's other names aren't listed."""
        ...

    def set_aside(
        self,
        target: PurePosixPath,
        paths: Sequence[bytes],
        *,
        job_id: str,
        attempt: int,
        control: TransferControl,
        replaced: bool = False,
    ) -> Sequence[bytes]:
        """Moves files of the run out of the way at the destination, kept for people to look at; those it found. Those
        that are `replaced`, by what the same attempt copies or seals there next, may stay until then where the storage
        can't rename: a copy is kept, and nothing is deleted that may be another engine's by then."""
        ...

    def sweep(self, job_id: str, *, keep_attempt: int | None, control: TransferControl) -> None:
        """Removes what dead attempts of this job left in their incoming folders."""
