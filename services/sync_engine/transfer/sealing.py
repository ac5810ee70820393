"""Putting the changing files' final content at the destination, atomically, and comparing it there (SPEC §4,
Sealing).
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Sequence

from libs.run_tree.manifest import CACHE_FOLDER
from services.sync_engine.transfer.destination_root import DestinationRoot
from services.sync_engine.transfer.sealed_file import SealedFile
from services.sync_engine.transfer.system_error import destination_error, shown
from services.sync_engine.transfer.transfer_control import TransferControl, TransferStoppedError
from services.sync_engine.transfer.transport import FailureKind, TransferError
from services.sync_engine.transfer.uncached_read import NotAFileError, hash_uncached

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE_MODE = 0o666
# A manifest grows with the run; the memory for sealing needn't.
_BLOCK = 256 << 10


def seal_files(root: DestinationRoot, files: Sequence[SealedFile], control: TransferControl) -> None:
    """Raises TransferError, TransferStoppedError; HASH_MISMATCH names what was read back differently."""
    root.refuse_if_gone()
    folders: set[bytes] = set()
    for file in files:
        control.look()
        folder = folder_of_sealed(file)
        root.ensure_folder(folder)
        folders.add(folder)
        _replace(root, file, control)
    for folder in sorted(folders):
        root.fsync_folder(folder)
    differing = [file.path for file in files if not _holds(root, file, control)]
    if differing:
        raise TransferError(
            FailureKind.HASH_MISMATCH, f"{shown(differing[0])} was read back differently after sealing", differing
        )


def folder_of_sealed(file: SealedFile) -> bytes:
    """The folder of the file below the equipment's. ValueError when it lies outside of that."""
    if file.path.startswith(b"/") or {b"..", b"."} & set(file.path.split(b"/")):
        raise ValueError(f"{file.path!r} climbs out of the equipment's folder")
    return file.path.rpartition(b"/")[0]


def folders_of_sealed(files: Sequence[SealedFile]) -> Sequence[bytes]:
    """The folders whose cache folders these files belong into, the equipment's own left out."""
    marked = b"/" + CACHE_FOLDER + b"/"
    return sorted({before for before, cache, _ in (file.path.partition(marked) for file in files) if cache})


def _replace(root: DestinationRoot, file: SealedFile, control: TransferControl) -> None:
    # The name that marks a temporary file beside its target: ignored by every reader, never part of a manifest.
    try:
        with root.folder_of(file.path) as (folder, name):
            temporary = name + b"." + secrets.token_hex(8).encode("ascii") + b".tmp"
            try:
                _write(folder, temporary, file)
                # As late as can be: what is there by now may be what another engine sealed it with.
                control.raise_if_stopped()
                os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            except (OSError, TransferStoppedError):
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=folder)
                raise
    except OSError as error:
        raise destination_error(error, "sealing", file.path) from error


def _write(folder: int, name: bytes, file: SealedFile) -> None:
    descriptor = os.open(name, _CREATE, _NEW_FILE_MODE, dir_fd=folder)
    with open(descriptor, "wb", buffering=0) as stream:
        for piece in file.pieces():
            remaining = memoryview(piece)
            while remaining:
                remaining = remaining[stream.write(remaining) or 0 :]
        os.utime(descriptor, ns=(file.mtime_ns, file.mtime_ns))
        os.fsync(descriptor)


def _holds(root: DestinationRoot, file: SealedFile, control: TransferControl) -> bool:
    try:
        streamed = hash_uncached(root.fd, file.path, file.size, control.look, block_bytes=_BLOCK)
    except NotAFileError:
        return False
    except OSError as error:
        raise destination_error(error, "reading back", file.path) from error
    return streamed.sha256 == file.sha256()
