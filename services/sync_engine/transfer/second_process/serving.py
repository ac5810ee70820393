"""The work of one lane in the second process: the engine's own way of copying and reading back, chunk by chunk.

Only what went well is told of. What didn't, the engine tries itself: it knows what to say of it.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable

import msgspec

from services.sync_engine.transfer.bandwidth import UNLIMITED, BandwidthBrake
from services.sync_engine.transfer.chunk_reader import ChunkReader
from services.sync_engine.transfer.file_copy import FileCopier
from services.sync_engine.transfer.incoming import IncomingName
from services.sync_engine.transfer.second_process.lane import Lane, LaneBrokenError
from services.sync_engine.transfer.second_process.messages import (
    ENCODER,
    CopyChunk,
    CopyLane,
    Judged,
    LaneRequest,
    VerifyChunk,
    Whole,
)
from services.sync_engine.transfer.source_file import SourceFiles
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import ProgressPhase, TransferError


def serve(request: LaneRequest, folder: int, lane: Lane) -> None:
    """Until the lane is closed; then so is the folder."""
    answer = _copying(request, folder) if isinstance(request, CopyLane) else _reading(request.target, folder)
    try:
        while True:
            lane.send(answer(lane.receive()))
    except LaneBrokenError:
        # The engine is through with it.
        pass
    finally:
        os.close(folder)
        lane.close()


def _copying(request: CopyLane, folder: int) -> Callable[[bytes], bytes]:
    copier = FileCopier(
        SourceFiles(request.run_folder),
        _LaneFolder(folder),
        brake=BandwidthBrake(UNLIMITED),
        control=TransferControl(),
        progress=_Unheard(),
    )
    decoder = msgspec.msgpack.Decoder(CopyChunk)

    def answer(message: bytes) -> bytes:
        entries = decoder.decode(message).entries
        places = {entry.path: place for place, entry in enumerate(entries)}
        try:
            copied = copier.copy_chunk(entries).whole
        except TransferError:
            copied = []
        return ENCODER.encode(
            [Whole(places[file.copied.path], file.incoming.number, file.copied.sha256) for file in copied]
        )

    return answer


def _reading(target: bytes, folder: int) -> Callable[[bytes], bytes]:
    reader = ChunkReader(folder, target, _NoWitness(), TransferControl(), _Unheard())
    decoder = msgspec.msgpack.Decoder(VerifyChunk)

    def answer(message: bytes) -> bytes:
        try:
            checked = reader.check(decoder.decode(message).files)
        except TransferError:
            checked = []
        found = ((one.verdict, one.evidence) for one in checked)
        return ENCODER.encode(
            [
                Judged(verdict, evidence.size, evidence.sha256) if evidence else Judged(verdict, 0, "")
                for verdict, evidence in found
            ]
        )

    return answer


class _LaneFolder:
    def __init__(self, folder: int) -> None:
        self._folder = folder
        self._numbers = itertools.count()

    def new_name(self) -> IncomingName:
        return IncomingName(self._folder, b"%d" % next(self._numbers))


class _NoWitness:
    """Every file that can't be read is the engine's matter."""

    def others_read(self, besides: bytes) -> bool:
        return False


class _Unheard:
    """The engine counts what it is told of."""

    def begin(self, phase: ProgressPhase, files_total: int, bytes_total: int) -> None: ...

    def advance(self, files: int, nbytes: int, current: bytes) -> None: ...
