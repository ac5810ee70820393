"""Reaching many names one after the other, which mostly lie in the same folder: it stays open until another comes."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

from libs.run_tree.beneath import open_beneath

_FOLDER = os.O_RDONLY | os.O_DIRECTORY


class FolderInHand:
    """The open folder of the name that was asked for last; one thread at a time. As the block ends it is closed."""

    def __init__(self, *, dir_fd: int | None = None) -> None:
        """With `dir_fd`, names are relative to that open folder; else absolute."""
        self._dir_fd = dir_fd
        self._top = b"/" if dir_fd is None else b"."
        self._path: bytes | None = None
        self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.let_go()

    def of(self, place: bytes) -> tuple[int, bytes]:
        """The folder that a name lies in, open until another one is asked for, and the name's last part there. Errors
        as `open_beneath`."""
        folder, _, name = place.rpartition(b"/")
        if folder != self._path:
            self.let_go()
            self._descriptor = open_beneath(folder or self._top, _FOLDER, dir_fd=self._dir_fd)
            self._path = folder
        return self._descriptor, name

    def let_go(self) -> None:
        """Closes it; the next name opens its own."""
        if self._path is not None:
            self._path = None
            os.close(self._descriptor)
