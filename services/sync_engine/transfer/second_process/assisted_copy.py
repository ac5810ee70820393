"""Copying chunks of small files with the second process's help."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from services.sync_engine.transfer.durable_together import MOST_WAITING_BYTES
from services.sync_engine.transfer.file_copy import ChunkOutcome, FileCopier, WholeFile
from services.sync_engine.transfer.incoming import IncomingName
from services.sync_engine.transfer.second_process.lanes import Lanes
from services.sync_engine.transfer.second_process.messages import ENCODER, FEWEST_FILES, MOST_BYTES, CopyChunk, Whole
from services.sync_engine.transfer.source_file import copied_from
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import Progress, SourceEntry

_ANSWER = msgspec.msgpack.Decoder(list[Whole])


class AssistedCopier:
    """As `FileCopier`, which does what no lane is free for, and what the second process left undone."""

    def __init__(self, copier: FileCopier, lanes: Lanes, control: TransferControl, progress: Progress) -> None:
        self._copier = copier
        self._lanes = lanes
        self._control = control
        self._progress = progress

    def abort(self) -> None:
        """As `FileCopier.abort`."""
        self._copier.abort()

    def copy_chunk(self, entries: Sequence[SourceEntry]) -> ChunkOutcome:
        """As `FileCopier.copy_chunk`."""
        whole = self._there(entries)
        if not whole:
            return self._copier.copy_chunk(entries)
        left = [entry for place, entry in enumerate(entries) if place not in whole]
        outcome = self._copier.copy_chunk(left) if left else ChunkOutcome()
        outcome.whole += whole.values()
        return outcome

    def _there(self, entries: Sequence[SourceEntry]) -> dict[int, WholeFile]:
        """What the second process brought, by its place."""
        nbytes = sum(entry.size for entry in entries)
        if len(entries) < FEWEST_FILES or nbytes > MOST_BYTES or self._control.winding_down:
            return {}
        self._control.raise_if_stopped()
        try:
            message = ENCODER.encode(CopyChunk(list(entries)))
        except OverflowError:
            return {}
        taken = self._lanes.take()
        if taken is None:
            return {}
        with self._control.quiet(nbytes + MOST_WAITING_BYTES):
            answer = self._lanes.ask(taken, message)
        if answer is None:
            return {}
        whole = {
            one.place: WholeFile(copied_from(entries[one.place], one.sha256), IncomingName(taken.folder, one.number))
            for one in _ANSWER.decode(answer)
        }
        for place in whole:
            self._progress.advance(1, entries[place].size, entries[place].path)
        return whole
