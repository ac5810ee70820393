"""What the engine and its second process say to each other. Open folders travel beside the request for a lane."""

from __future__ import annotations

import msgspec

from services.sync_engine.transfer.chunk_reader import CHUNK_BYTES, Expected, Verdict
from services.sync_engine.transfer.transport import SourceEntry

FEWEST_FILES = 8
MOST_BYTES = CHUNK_BYTES
"""A chunk of fewer files or more bytes is not worth another process: hashing needs no lock, and large files are felt
sooner when they are stopped here."""


MOST_REQUEST_BYTES = 64 << 10
"""Of a request for a lane."""


ENCODER = msgspec.msgpack.Encoder()
"""OverflowError for times of files before 1677 or after 2554: 64 bits don't hold them in nanoseconds."""


class CopyLane(msgspec.Struct, frozen=True, tag="copy"):
    """Asks for a lane that copies files of the run in that folder into the open folder."""

    run_folder: bytes


class VerifyLane(msgspec.Struct, frozen=True, tag="verify"):
    """Asks for a lane that reads back files below `target` in the open folder."""

    target: bytes


LaneRequest = CopyLane | VerifyLane


class CopyChunk(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Files to copy; the answer is a list of `Whole`."""

    entries: list[SourceEntry]


class Whole(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The file of that place in the chunk lies whole and durable in the lane's folder, as `number`. Of a file that
    isn't answered so nothing is known."""

    place: int
    number: bytes
    sha256: str


class VerifyChunk(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Files to read back; the answer is a list of `Judged`, one for each, or of none when the storage failed."""

    files: list[Expected]


class Judged(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a file was found to be. Without a hash there is no evidence of it."""

    verdict: Verdict
    size: int
    sha256: str
