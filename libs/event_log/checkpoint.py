"""A checkpoint: the end of the log at a time, signed, so that a chain that was computed anew shows.

The signature is Ed25519 over these seven fields in this order, each as a four-byte big-endian length and then so many
bytes, as in the hash chain:

    1 layout    the text "labferry.checkpoint.v1"
    2 store_id  text
    3 position  integer
    4 hash      the 32 bytes of that event's hash
    5 time      text, RFC 3339 in UTC with microseconds
    6 series    text
    7 number    integer

Text is UTF-8; an integer is eight bytes, big-endian two's complement. As a line of JSON it has the same fields, `hash`,
`public_key` and `signature` in lower-case hex.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

LAYOUT = "labferry.checkpoint.v1"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is signed. `number` counts from 1 without gaps within a `series`: one writer's row of checkpoints."""

    store_id: str
    position: int
    hash: bytes
    time: str
    series: str
    number: int


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint with the key that it says signed it. Only `is_genuine` tells whether it did."""

    checkpoint: Checkpoint
    public_key: bytes
    signature: bytes

    def is_genuine(self) -> bool:
        """Whether the holder of `public_key` signed exactly this. Whose key that is, is another question."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(self.signature, signed_bytes(self.checkpoint))
        except (InvalidSignature, ValueError):
            return False
        return True


class CheckpointFormatError(ValueError):
    """A line that is no checkpoint."""


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    layout: str
    store_id: str
    position: int
    hash: str
    time: str
    series: str
    number: int
    public_key: str
    signature: str


def checkpoint_time(now_ns: int) -> str:
    """Nanoseconds since the epoch as a checkpoint writes them."""
    moment = datetime.fromtimestamp(now_ns // 1_000_000_000, UTC).replace(microsecond=now_ns % 1_000_000_000 // 1000)
    return f"{moment:%Y-%m-%dT%H:%M:%S.%fZ}"


def signed_bytes(checkpoint: Checkpoint) -> bytes:
    """The bytes that the signature covers."""
    fields: tuple[str | int | bytes, ...] = (
        LAYOUT,
        checkpoint.store_id,
        checkpoint.position,
        checkpoint.hash,
        checkpoint.time,
        checkpoint.series,
        checkpoint.number,
    )
    return b"".join(map(_field, fields))


def sign(checkpoint: Checkpoint, key: Ed25519PrivateKey) -> SignedCheckpoint:
    return SignedCheckpoint(checkpoint, key.public_key().public_bytes_raw(), key.sign(signed_bytes(checkpoint)))


def to_line(signed: SignedCheckpoint) -> bytes:
    """One line of JSON, with its end."""
    checkpoint = signed.checkpoint
    line = _Line(
        LAYOUT,
        checkpoint.store_id,
        checkpoint.position,
        checkpoint.hash.hex(),
        checkpoint.time,
        checkpoint.series,
        checkpoint.number,
        signed.public_key.hex(),
        signed.signature.hex(),
    )
    return msgspec.json.encode(line) + b"\n"


def from_line(line: bytes) -> SignedCheckpoint:
    """CheckpointFormatError for anything else. The signature is not checked."""
    try:
        read = msgspec.json.decode(line, type=_Line)
        digest, public_key, signature = map(bytes.fromhex, (read.hash, read.public_key, read.signature))
        # An integer that doesn't fit can't have been signed.
        struct.pack(">qq", read.position, read.number)
        for text in (read.store_id, read.time, read.series):
            text.encode()
    except (msgspec.DecodeError, ValueError, struct.error) as error:
        raise CheckpointFormatError(f"is no checkpoint: {error}") from error
    if read.layout != LAYOUT:
        raise CheckpointFormatError(f"has the layout {read.layout!r}, not {LAYOUT!r}")
    checkpoint = Checkpoint(read.store_id, read.position, digest, read.time, read.series, read.number)
    return SignedCheckpoint(checkpoint, public_key, signature)


def _field(value: str | int | bytes) -> bytes:
    if isinstance(value, int):
        value = struct.pack(">q", value)
    elif isinstance(value, str):
        value = value.encode()
    return struct.pack(">I", len(value)) + value
