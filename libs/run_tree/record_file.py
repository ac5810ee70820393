"""Reading and changing the cache files beside `creation.json` by the same rules: no field lost, never half a file
(SPEC §2, FORMATS §§1, 2, 5, 6).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import Timeout

from libs.run_tree.atomic_file import create_in_folder, read_in_folder, write_in_folder
from libs.run_tree.beneath import folder_beneath, is_folder_beneath
from libs.run_tree.json_value import JsonValue, NotJsonError, decode_json, encode_json
from libs.run_tree.record_lock import DEFAULT_LOCK_TIMEOUT, record_lock

Document = Mapping[str, JsonValue]

# The wizard's own mode for cache files.
_NEW_FILE_MODE = 0o600
_VERSION = re.compile(r"(\d{1,9})\.(\d{1,9})", re.ASCII)
_MAJOR = 1


class RecordError(Exception):
    """Base of everything below. `path` is the file; the message is one plain sentence."""

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(message)
        self.message = message
        self.path = path


class RecordMissingError(RecordError):
    """There is no such file, which is legal for every cache file but `creation.json`."""


class RecordUnreadableError(RecordError):
    """It exists, but can't be read or decoded, or a field holds something else than it may."""


class RecordMajorMismatchError(RecordUnreadableError):
    """Its schema version is missing or of another major; nothing of it was used."""


class RecordLockedError(RecordError):
    """Another program held the lock for the whole waiting time."""


class RecordNotWritableError(RecordError):
    """The system refused the write; the file is as it was."""


def read_record(path: Path) -> Document:
    """The whole document. RecordMissingError, RecordUnreadableError, RecordMajorMismatchError."""
    try:
        with folder_beneath(path.parent) as folder:
            return _read(folder, path)
    except OSError as error:
        raise _unreadable(path, error) from error


def _read(folder: int, path: Path) -> Document:
    try:
        content = read_in_folder(folder, path)
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        document = decode_json(content)
    except NotJsonError as error:
        raise RecordUnreadableError(f"{path} is no readable JSON: {error}.", path) from error
    if not isinstance(document, dict):
        raise RecordUnreadableError(f"{path} holds no JSON object.", path)
    refuse_other_major(document, path)
    return document


def refuse_other_major(document: Document, path: Path) -> None:
    """RecordMajorMismatchError unless the document is of major version 1."""
    found = document.get("schema_version")
    shape = _VERSION.fullmatch(found) if isinstance(found, str) else None
    if shape is None or int(shape[1]) != _MAJOR:
        what = "is missing" if found is None else f"is {repr(found)[:80]}"
        raise RecordMajorMismatchError(f"{path}: schema_version {what}; major version {_MAJOR} is needed.", path)


def text_field(document: Document, key: str, path: Path, *, required: bool = True) -> str:
    """A field that holds text; empty when it is absent and not required. RecordUnreadableError."""
    value = document.get(key)
    if value is None and not required:
        return ""
    if not isinstance(value, str):
        raise RecordUnreadableError(f"{path}: {key} {'is missing' if value is None else 'is no text'}.", path)
    return value


def change_record(
    path: Path,
    change: Callable[[Document | None], Document | None],
    order: Sequence[str],
    lock_timeout: float = DEFAULT_LOCK_TIMEOUT,
) -> None:
    """Replaces the document by `change(document)` under the lock; it gets None when there is no file yet.

    Nothing is written when it gives None or the same. Keys stand in `order`, those that aren't in it last. Errors of
    `read_record`, of `change`, RecordLockedError, RecordNotWritableError.
    """
    if not is_folder_beneath(path.parent):
        raise RecordNotWritableError(f"{path} can't be written: there is no such folder.", path)
    with _locked(path, lock_timeout) as folder:
        before = _read_if_there(folder, path)
        after = change(before)
        if after is None or after == before:
            return
        try:
            write_in_folder(folder, path, encode_in_order(after, order), mode=_NEW_FILE_MODE)
        except OSError as error:
            raise _not_writable(path, error) from error


def create_record(path: Path, document: Document, order: Sequence[str]) -> bool:
    """Writes a file that is written once; False when there is one, whatever it holds. RecordNotWritableError."""
    try:
        with folder_beneath(path.parent) as folder:
            create_in_folder(folder, path, encode_in_order(document, order), mode=_NEW_FILE_MODE)
    except FileExistsError:
        return False
    except OSError as error:
        raise _not_writable(path, error) from error
    return True


def encode_in_order(document: Document, order: Sequence[str]) -> bytes:
    """The document's bytes with the keys of `order` first."""
    place = {key: number for number, key in enumerate(order)}
    return encode_json({key: document[key] for key in sorted(document, key=lambda k: place.get(k, len(place)))})


def _read_if_there(folder: int, path: Path) -> Document | None:
    try:
        return _read(folder, path)
    except RecordMissingError:
        return None


def _unreadable(path: Path, error: OSError) -> RecordMissingError | RecordUnreadableError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return RecordMissingError(f"There is no {path}.", path)
    return RecordUnreadableError(f"{path} can't be read: {error.strerror}.", path)


@contextmanager
def _locked(path: Path, timeout: float) -> Iterator[int]:
    with ExitStack() as held:
        try:
            folder = held.enter_context(record_lock(path, timeout))
        except Timeout as error:
            raise RecordLockedError(f"{path} was locked by another program for {timeout:g} seconds.", path) from error
        except OSError as error:
            raise RecordNotWritableError(f"{path} can't be locked: {error.strerror}.", path) from error
        yield folder


def _not_writable(path: Path, error: OSError) -> RecordNotWritableError:
    return RecordNotWritableError(f"{path} can't be written: {error.strerror}; it is as it was.", path)
