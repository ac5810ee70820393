"""Reading and changing a `creation.json` beside other programs that do the same (SPEC §2).

Every change holds the `filelock` lock that ExLab-Wizard's writers hold, over the whole read-change-write. Reading
needs no lock: files are replaced atomically.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import Timeout

from libs.run_tree.atomic_file import create_in_folder, read_in_folder, write_in_folder
from libs.run_tree.beneath import Place, folder_beneath, is_folder_beneath, status_beneath
from libs.run_tree.creation_errors import (
    CreationError,
    CreationExistsError,
    CreationLockedError,
    CreationMissingError,
    CreationNotWritableError,
    CreationUnreadableError,
)
from libs.run_tree.creation_record import (
    CreationRecord,
    creation_from_document,
    document_to_write,
    encode_creation,
    parse_creation,
)
from libs.run_tree.json_value import encode_json
from libs.run_tree.record_lock import DEFAULT_LOCK_TIMEOUT, record_lock

_CACHE = b"/.exlab-wizard"
_NAME = Path("creation.json")
# The wizard's own mode for cache files.
_NEW_FILE_MODE = 0o600


def creation_path(folder: Path) -> Path:
    """Where the `creation.json` of a run's or project's folder lies."""
    return folder / ".exlab-wizard" / "creation.json"


def read_creation(path: Path) -> CreationRecord:
    """The record as it is now. CreationMissingError, CreationUnreadableError, SchemaMajorMismatchError."""
    try:
        with folder_beneath(path.parent) as folder:
            return _read(folder, path)
    except OSError as error:
        raise _unreadable(path, error) from error


def read_creation_of(folder: Place) -> CreationRecord:
    """The record of the run or project in this folder; as `read_creation`, for those who read very many."""
    try:
        with folder_beneath(os.fsencode(folder) + _CACHE) as cache:
            content = read_in_folder(cache, _NAME)
    except OSError as error:
        raise _unreadable(creation_path(Path(os.fsdecode(folder))), error) from error
    try:
        return parse_creation(content)
    except CreationError as error:
        error.path = creation_path(Path(os.fsdecode(folder)))
        raise


def mutate_creation(
    path: Path,
    change: Callable[[CreationRecord], CreationRecord],
    lock_timeout: float = DEFAULT_LOCK_TIMEOUT,
) -> CreationRecord:
    """Replaces the record by `change(record)` under the lock and returns what the file then holds.

    Nothing is written when nothing changed. Beside the errors of `read_creation`: CreationLockedError after
    `lock_timeout` seconds, CreationNotWritableError; the file is then as it was.
    """
    try:
        status_beneath(path)
    except OSError as error:
        # The lock would be left beside nothing.
        raise _unreadable(path, error) from error
    with _locked(path, lock_timeout) as folder:
        before = _read(folder, path)
        after = change(before)
        if after is before or after.raw == before.raw:
            return before
        # What was written is what a reader gets; a record that could not be read back never reaches the disk.
        written = _checked(path, after)
        try:
            write_in_folder(folder, path, encode_json(written.raw), mode=_NEW_FILE_MODE)
        except OSError as error:
            raise _not_writable(path, error) from error
        return written


def write_first_creation(path: Path, record: CreationRecord, lock_timeout: float = DEFAULT_LOCK_TIMEOUT) -> None:
    """Writes a run's or project's first `creation.json`. CreationExistsError when there is one."""
    if not is_folder_beneath(path.parent):
        raise CreationNotWritableError(f"{path} can't be written: there is no such folder.", path)
    with _locked(path, lock_timeout) as folder:
        try:
            create_in_folder(folder, path, encode_creation(record), mode=_NEW_FILE_MODE)
        except FileExistsError as error:
            raise CreationExistsError(f"{path} exists already.", path) from error
        except OSError as error:
            raise _not_writable(path, error) from error


def _read(folder: int, path: Path) -> CreationRecord:
    try:
        content = read_in_folder(folder, path)
    except OSError as error:
        raise _unreadable(path, error) from error
    return _parsed(path, content)


def _unreadable(path: Path, error: OSError) -> CreationMissingError | CreationUnreadableError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return CreationMissingError(f"There is no {path}.", path)
    return CreationUnreadableError(f"{path} can't be read: {error.strerror}.", path)


def _parsed(path: Path, content: bytes) -> CreationRecord:
    try:
        return parse_creation(content)
    except CreationError as error:
        error.path = path
        raise


def _checked(path: Path, record: CreationRecord) -> CreationRecord:
    try:
        return creation_from_document(document_to_write(record))
    except CreationError as error:
        error.path = path
        raise


@contextmanager
def _locked(path: Path, timeout: float) -> Iterator[int]:
    with ExitStack() as held:
        try:
            folder = held.enter_context(record_lock(path, timeout))
        except Timeout as error:
            raise CreationLockedError(f"{path} was locked by another program for {timeout:g} seconds.", path) from error
        except OSError as error:
            raise CreationNotWritableError(f"{path} can't be locked: {error.strerror}.", path) from error
        yield folder


def _not_writable(path: Path, error: OSError) -> CreationNotWritableError:
    return CreationNotWritableError(f"{path} can't be written: {error.strerror}; it is as it was.", path)
