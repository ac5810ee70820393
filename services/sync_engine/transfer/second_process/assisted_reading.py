"""Reading back chunks of small files with the second process's help."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from services.sync_engine.transfer.chunk_reader import Checked, ChunkReader, Expected
from services.sync_engine.transfer.second_process.lanes import Lanes
from services.sync_engine.transfer.second_process.messages import ENCODER, FEWEST_FILES, MOST_BYTES, Judged, VerifyChunk
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import CopiedFile, EvidenceGrade, FileEvidence, Progress

_ANSWER = msgspec.msgpack.Decoder(list[Judged])


class AssistedReader:
    """As `ChunkReader`, which does what no lane is free for, and what the second process could not read."""

    def __init__(self, reader: ChunkReader, lanes: Lanes, control: TransferControl, progress: Progress) -> None:
        self._reader = reader
        self._lanes = lanes
        self._control = control
        self._progress = progress

    def check(self, files: Sequence[Expected]) -> list[Checked]:
        """As `ChunkReader.check`."""
        return self._there(files) or self._reader.check(files)

    def _there(self, files: Sequence[Expected]) -> list[Checked]:
        """What the second process found of them; empty when that is nothing."""
        nbytes = sum(one.file.size for one in files)
        if len(files) < FEWEST_FILES or nbytes > MOST_BYTES:
            return []
        self._control.raise_before_file()
        try:
            message = ENCODER.encode(VerifyChunk(list(files)))
        except OverflowError:
            return []
        taken = self._lanes.take()
        if taken is None:
            return []
        with self._control.quiet(nbytes):
            answer = self._lanes.ask(taken, message)
        if answer is None:
            return []
        judged = _ANSWER.decode(answer)
        if not judged:
            return []
        checked = [_checked(one.file, found) for one, found in zip(files, judged, strict=True)]
        for file, _, evidence, _ in checked:
            if evidence is not None:
                self._progress.advance(1, min(evidence.size, file.size), file.path)
        return checked


def _checked(file: CopiedFile, found: Judged) -> Checked:
    evidence = FileEvidence(file.path, found.size, found.sha256, EvidenceGrade.E4, file.kind) if found.sha256 else None
    return Checked(file, found.verdict, evidence)
