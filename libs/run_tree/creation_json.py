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

from libs.run_tree.atomic_file import create_atomically, read_plain_file, write_atomically
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

# The wizard's own mode for cache files.
_NEW_FILE_MODE = 0o600


def creation_path(folder: Path) -> Path:
    """Where the `creation.json` of a run's or project's folder lies."""
    return folder / ".exlab-wizard" / "creation.json"


def read_creation(path: Path) -> CreationRecord:
    """The record as it is now. CreationMissingError, CreationUnreadableError, SchemaMajorMismatchError."""
    return _parsed(path, _content(path))


def mutate_creation(
    path: Path,
    change: Callable[[CreationRecord], CreationRecord],
    lock_timeout: float = DEFAULT_LOCK_TIMEOUT,
) -> CreationRecord:
    """Replaces the record by `change(record)` under the lock and returns what the file then holds.

    Nothing is written when nothing changed. Beside the errors of `read_creation`: CreationLockedError after
    `lock_timeout` seconds, CreationNotWritableError; the file is then as it was.
    """
    if not os.path.lexists(path):
        # The lock would be left beside nothing.
        raise _missing(path)
    with _locked(path, lock_timeout):
        before = read_creation(path)
        after = change(before)
        if after is before or after.raw == before.raw:
            return before
        # What was written is what a reader gets; a record that could not be read back never reaches the disk.
        written = _checked(path, after)
        try:
            write_atomically(path, encode_json(written.raw), mode=_NEW_FILE_MODE)
        except OSError as error:
            raise _not_writable(path, error) from error
        return written


def write_first_creation(path: Path, record: CreationRecord, lock_timeout: float = DEFAULT_LOCK_TIMEOUT) -> None:
    """Writes a run's or project's first `creation.json`. CreationExistsError when there is one."""
    # The lock would make the missing folders.
    if not path.parent.is_dir():
        raise CreationNotWritableError(f"{path} can't be written: there is no such folder.", path)
    with _locked(path, lock_timeout):
        try:
            create_atomically(path, encode_creation(record), mode=_NEW_FILE_MODE)
        except FileExistsError as error:
            raise CreationExistsError(f"{path} exists already.", path) from error
        except OSError as error:
            raise _not_writable(path, error) from error


def _content(path: Path) -> bytes:
    try:
        return read_plain_file(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _missing(path) from error
    except OSError as error:
        raise CreationUnreadableError(f"{path} can't be read: {error.strerror}.", path) from error


def _missing(path: Path) -> CreationMissingError:
    return CreationMissingError(f"There is no {path}.", path)


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
def _locked(path: Path, timeout: float) -> Iterator[None]:
    with ExitStack() as held:
        try:
            held.enter_context(record_lock(path, timeout))
        except Timeout as error:
            raise CreationLockedError(f"{path} was locked by another program for {timeout:g} seconds.", path) from error
        except OSError as error:
            raise CreationNotWritableError(f"{path} can't be locked: {error.strerror}.", path) from error
        yield


def _not_writable(path: Path, error: OSError) -> CreationNotWritableError:
    return CreationNotWritableError(f"{path} can't be written: {error.strerror}; it is as it was.", path)
