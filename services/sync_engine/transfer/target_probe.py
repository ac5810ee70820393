"""Finding out what a destination really does with names, by trying in the incoming folder."""

from __future__ import annotations

import errno
import os
import unicodedata

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
        os.mkdir(folder, dir_fd=root.fd)
        try:
            return TargetTraits(
                case_sensitive=not _one_name(root, folder, b"Case", b"cASE"),
                keeps_unicode_forms=not _one_name(
                    root, folder, _COMPOSED.encode(), unicodedata.normalize("NFD", _COMPOSED).encode()
                ),
                keeps_any_bytes=_keeps(root, folder, b"\xff\xfe"),
                max_name_bytes=_longest_name(root, folder),
            )
        finally:
            os.rmdir(folder, dir_fd=root.fd)
    except OSError as error:
        raise destination_error(error, "trying names") from error


def _make(root: DestinationRoot, place: bytes) -> None:
    os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=root.fd))


def _one_name(root: DestinationRoot, folder: bytes, name: bytes, other: bytes) -> bool:
    _make(root, folder + b"/" + name)
    try:
        return root.status(folder + b"/" + other) is not None
    finally:
        os.unlink(folder + b"/" + name, dir_fd=root.fd)


def _keeps(root: DestinationRoot, folder: bytes, name: bytes) -> bool:
    try:
        _make(root, folder + b"/" + name)
    except OSError as error:
        if error.errno in _REFUSES_THE_NAME:
            return False
        raise
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root.fd)
        try:
            return name in {os.fsencode(kept) for kept in os.listdir(descriptor)}
        finally:
            os.close(descriptor)
    finally:
        os.unlink(folder + b"/" + name, dir_fd=root.fd)


def _longest_name(root: DestinationRoot, folder: bytes) -> int:
    if _keeps(root, folder, b"n" * _LONGEST_LINUX_NAME):
        return _LONGEST_LINUX_NAME
    return os.fpathconf(root.fd, "PC_NAME_MAX")
