"""A name is moved out of everybody's way before it is deleted: what is looked at there is what goes.

The system removes names, not files: between the last look at a name and its removal another program can put a new file
there. Under a name that nobody else knows of, in the run's cache folder, nobody does. Such names are temporary ones by
the run tree's rules (SPEC §1): they never travel, and are no file of the run.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Callable
from urllib.parse import quote_from_bytes, unquote_to_bytes

from libs.run_tree.libc import rename_noreplace
from libs.run_tree.manifest import CACHE_FOLDER
from services.sync_engine.transfer.landing import NO_EXCLUSIVE_RENAME
from services.sync_engine.transfer.system_error import shown, words_of

_LONGEST_NAME = 140
"""What every filesystem can hold: encrypting ones take no more than 143 bytes."""
_ASIDE = re.compile(rb"cleanup\.(?:=(?P<sha256>[0-9a-f]{64})|(?P<path>.+))\.[0-9a-f]{16}\.tmp")


class KeptAsideError(Exception):
    """What was not to be deleted could not be put back under its name; the message says where it lies."""


def aside_name(path: bytes) -> bytes:
    """A new name, each time, for a path relative to the run. It tells the path, or where that is too long its hash."""
    told = quote_from_bytes(path, safe="")
    name = f"cleanup.{told}.{secrets.token_hex(8)}.tmp".encode("ascii")
    return name if len(name) <= _LONGEST_NAME else name.replace(told.encode("ascii"), b"=" + _sha256(path))


def path_set_aside(name: bytes, paths: Callable[[], dict[bytes, bytes]]) -> bytes | None:
    """Which path a name in the cache folder stands for; None: it is no such name, or nobody knows. `paths` gives those
    that come into question, by `hash_of_path`."""
    if (found := _ASIDE.fullmatch(name)) is None:
        return None
    return paths().get(found["sha256"]) if found["sha256"] else unquote_to_bytes(found["path"])


def hash_of_path(path: bytes) -> bytes:
    """What stands for a long path."""
    return _sha256(path)


def delete_aside(parent: int, name: bytes, cache: int, path: bytes, look: Callable[[int, bytes], None]) -> None:
    """Deletes the file of this name in an open folder if `look`, given where it lies by then, doesn't raise; else puts
    it back without replacing anything, and raises what `look` did. KeptAsideError; OSError."""
    aside = aside_name(path)
    _move_away(parent, name, cache, aside)
    try:
        look(cache, aside)
        os.unlink(aside, dir_fd=cache)
    except BaseException as reason:
        try:
            put_back(cache, aside, parent, name)
        except FileNotFoundError:
            # Another engine, which took the run over, has put it back.
            raise reason from None
        except OSError as error:
            raise KeptAsideError(kept_aside(aside, error)) from reason
        raise


def put_back(cache: int, aside: bytes, parent: int, name: bytes) -> None:
    """FileExistsError when the name is taken; OSError."""
    try:
        rename_noreplace(cache, aside, parent, name)
    except OSError as error:
        if error.errno not in NO_EXCLUSIVE_RENAME:
            raise
        os.link(aside, name, src_dir_fd=cache, dst_dir_fd=parent, follow_symlinks=False)
        os.unlink(aside, dir_fd=cache)


def kept_aside(aside: bytes, error: OSError) -> str:
    """One sentence for people."""
    taken = "another file took its name meanwhile" if isinstance(error, FileExistsError) else words_of(error)
    return f"it could not be put back ({taken}) and lies in {shown(CACHE_FOLDER)}/{shown(aside)}"


def _move_away(parent: int, name: bytes, cache: int, aside: bytes) -> None:
    try:
        rename_noreplace(parent, name, cache, aside)
    except OSError as error:
        if error.errno not in NO_EXCLUSIVE_RENAME:
            raise
        # Nobody else makes such a name, so there is nothing to replace.
        os.rename(name, aside, src_dir_fd=parent, dst_dir_fd=cache)


def _sha256(path: bytes) -> bytes:
    return hashlib.sha256(path).hexdigest().encode("ascii")
