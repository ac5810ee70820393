"""What rsync says of its progress, turned into steps that never fall and count nothing twice."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import IO

from services.sync_engine.transfer.transport import SourceEntry

_PROGRESS = re.compile(rb"\s*([\d,]+)\s+\d+%(?:.*xfr#(\d+))?")


class RsyncProgress:
    """About which file is in work rsync tells no more than a number. `moved` hears steps and the file in work; `alive`
    hears that rsync works, also where that is no step because it takes what arrived before."""

    def __init__(
        self, entries: Sequence[SourceEntry], moved: Callable[[int, bytes], None], alive: Callable[[], None]
    ) -> None:
        self._entries = self._left = sorted(entries, key=lambda entry: entry.path)
        self._moved = moved
        self._alive = alive
        self._total = sum(entry.size for entry in entries)
        self._told = 0
        self._before = 0
        self._sent = 0
        self.counted = 0
        """Bytes of which this run of rsync has spoken; what it takes from a partial file is among them."""

    def begin(self, whole: AbstractSet[bytes]) -> None:
        """A run of rsync begins. It counts from 0 and passes over the files that are whole at the far end; of one that
        is there in part it counts that part again."""
        self._left = [entry for entry in self._entries if entry.path not in whole]
        self._before = self._total - sum(entry.size for entry in self._left)
        self.counted = self._sent = 0

    def read(self, stream: IO[bytes]) -> None:
        """Until its end."""
        rest = b""
        while chunk := os.read(stream.fileno(), 65536):
            *lines, rest = (rest + chunk).replace(b"\r", b"\n").split(b"\n")
            for line in lines:
                self._line(line)

    def _line(self, line: bytes) -> None:
        progress = _PROGRESS.match(line)
        if progress is None:
            return
        # It stands only where a file has ended.
        self._sent = int(progress[2] or self._sent)
        counted = int(progress[1].replace(b",", b""))
        if counted <= self.counted:
            return
        self.counted = counted
        self._alive()
        done = min(self._total, self._before + counted)
        if done > self._told:
            current = self._left[min(self._sent, len(self._left) - 1)] if self._left else self._entries[-1]
            self._moved(done - self._told, current.path)
            self._told = done

    def finish(self) -> None:
        """What needn't be sent again counts too."""
        if self._entries and self._total > self._told:
            self._moved(self._total - self._told, self._entries[-1].path)
