"""Finding out what a destination really does with names, by trying in the incoming folder."""

from __future__ import annotations

import errno
import os
import unicodedata

from libs.run_tree.beneath import folder_beneath
from services.sync_engine.transfer.destination_root import DestinationRoot
from services.sync_engine.transfer.incoming import INCOMING, remove_tree
from services.sync_engine.transfer.system_error import destination_error
from services.sync_engine.transfer.transport import TargetTraits

_LONGEST_LINUX_NAME = 255
_COMPOSED = unicodedata.normalize("NFC", "e\u0301")
_REFUSES_THE_NAME = frozenset({errno.EILSEQ, errno.EINVAL, errno.ENAMETOOLONG, errno.ENOENT})


def probe_target(root: DestinationRoot, folder: bytes) -> TargetTraits:
    """Makes a few empty files in `folder`, which is the attempt's own, and removes it: what a killed engine leaves is
    swept by the job's next attempt. TransferError when not even that works."""
    root.ensure_folder(INCOMING)
    remove_tree(root, folder)
    try:
        with root.folder_of(folder) as (above, name):
            os.mkdir(name, dir_fd=above)
            try:
                with folder_beneath(name, dir_fd=above) as tried:
                    return _traits(tried)
            finally:
                os.rmdir(name, dir_fd=above)
    except OSError as error:
        raise destination_error(error, "trying names") from error


def _traits(folder: int) -> TargetTraits:
    return TargetTraits(
        case_sensitive=not _one_name(folder, b"Case", b"cASE"),
        keeps_unicode_forms=not _one_name(folder, _COMPOSED.encode(), unicodedata.normalize("NFD", _COMPOSED).encode()),
        keeps_any_bytes=_keeps(folder, b"\xff\xfe"),
        max_name_bytes=_longest_name(folder),
    )


def _make(folder: int, name: bytes) -> None:
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder))


def _one_name(folder: int, name: bytes, other: bytes) -> bool:
    _make(folder, name)
    try:
        os.stat(other, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    finally:
        os.unlink(name, dir_fd=folder)
    return True


def _keeps(folder: int, name: bytes) -> bool:
    try:
        _make(folder, name)
    except OSError as error:
        if error.errno in _REFUSES_THE_NAME:
            return False
        raise
    try:
        return name in {os.fsencode(kept) for kept in os.listdir(folder)}
    finally:
        os.unlink(name, dir_fd=folder)


def _longest_name(folder: int) -> int:
    if _keeps(folder, b"n" * _LONGEST_LINUX_NAME):
        return _LONGEST_LINUX_NAME
    return os.fpathconf(folder, "PC_NAME_MAX")
