"""Whether a storage that can't read one file reads others: a bad sector is told from a dead storage (SPEC §4)."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator, Sequence

from services.sync_engine.transfer.destination_root import DestinationRoot
from services.sync_engine.transfer.present import PresentName
from services.sync_engine.transfer.transport import EntryKind
from services.sync_engine.transfer.uncached_read import NotAFileError, open_uncached

OF_ONE_FILE = frozenset({errno.EIO, errno.EUCLEAN, errno.EBADMSG})
"""What the system says of content that it can't read, or that doesn't have the checksum it should. A server that is
gone may say the first of every file."""

_ASKED = 3
_MOST_NAMES = 100
_PIECE = 4096


class StorageWitness:
    """Reads a few other files of the same run, chosen anew each time: what a server that lost its disks still has in
    its memory are few of them. For several threads."""

    def __init__(self, root: DestinationRoot, target: bytes, present: Sequence[PresentName]) -> None:
        self._root = root
        self._target = target
        self._present = present

    def others_read(self, besides: bytes) -> bool:
        """Whether, of up to three other files, one can be read and no two can't. TransferError when the destination is
        gone."""
        self._root.refuse_if_gone()
        read = unread = 0
        for path in self._chosen(besides):
            could = self._reads(path)
            read += could is True
            unread += could is False
            if read + unread == _ASKED:
                break
        return read > 0 and unread < 2

    def _chosen(self, besides: bytes) -> Iterator[bytes]:
        for number in random.sample(range(len(self._present)), min(len(self._present), _MOST_NAMES)):
            name = self._present[number]
            if name.kind is EntryKind.FILE and name.path != besides:
                yield name.path

    def _reads(self, path: bytes) -> bool | None:
        """None: it is empty, or gone meanwhile, and says nothing."""
        try:
            descriptor = open_uncached(self._root.fd, self._target + b"/" + path, _PIECE)
            try:
                return bool(os.pread(descriptor, _PIECE, 0)) or None
            finally:
                os.close(descriptor)
        except (FileNotFoundError, NotAFileError):
            return None
        except OSError:
            return False
