"""A backup: a consistent copy of the log with its blobs, made while the service works on, in bounded memory.

The log only grows, so what it holds up to one position is a consistent state of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tarfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from typing import BinaryIO

import msgspec

from labferry.events.v1.log_events_pb2 import LogBackedUp
from libs.event_log import backup_format
from libs.event_log.blob_store import BlobChangedError, BlobMissingError
from libs.event_log.checkpoint import checkpoint_time, to_line
from libs.event_log.event import RecordedEvent
from libs.event_log.export import checked_lines, first_event, require_whole
from libs.event_log.file_pieces import PIECE_BYTES
from libs.event_log.genesis import copy_record
from libs.event_log.hash_chain import ChainCheck
from libs.event_log.kept_log import KeptLog
from libs.event_log.named_blobs import blobs_named_by
from libs.event_log.store import EventStore


async def record_backup(store: EventStore, *, actor: str, reason: str, correlation_id: str) -> RecordedEvent:
    """Records who gets a backup, before anything of it is given. This is the last event that the backup holds."""
    record = copy_record(LogBackedUp(), actor=actor, reason=reason, correlation_id=correlation_id)
    return (await store.append([record])).events[0]


async def backup_chunks(log: KeptLog, head: RecordedEvent, version: str) -> AsyncGenerator[bytes, None]:
    """The archive's bytes, up to and with the event `head`. LogDamagedError, BlobError: there is no backup then."""
    archive = _Archive(time.time_ns())
    manifest = backup_format.Manifest(
        store_id=log.store.store_id,
        service=(await first_event(log.store))[1].service,
        version=version,
        head_position=head.position,
        head_hash=head.hash.hex(),
        made_time=checkpoint_time(archive.made_ns),
    )
    yield archive.entry(backup_format.MANIFEST, msgspec.json.encode(manifest) + b"\n")
    if log.checkpoints is not None:
        yield archive.entry(backup_format.CHECKPOINT, to_line(await log.checkpoints.make(head.position)))
    async for chunk in _events_and_blobs(log, head.position, archive):
        yield chunk
    number = 0
    async for records in log.store.requests(head.position):
        number += 1
        lines = b"".join(map(backup_format.request_line, records))
        yield archive.entry(backup_format.numbered(backup_format.REQUESTS, number), lines)
    yield archive.end()


async def _events_and_blobs(log: KeptLog, upto: int, archive: _Archive) -> AsyncIterator[bytes]:
    chain = ChainCheck(log.store.store_id)
    number = 0
    taken: set[bytes] = set()
    async for page in log.store.read(0, upto=upto):
        number += 1
        lines = await asyncio.to_thread(checked_lines, chain, page, log.event_types)
        yield archive.entry(backup_format.numbered(backup_format.EVENTS, number), lines)
        for digest in _new_blobs(log, page, taken):
            async for chunk in _blob(log, digest, archive):
                yield chunk
    require_whole(chain, 1, upto)


def _new_blobs(log: KeptLog, events: Iterable[RecordedEvent], taken: set[bytes]) -> list[str]:
    new: list[str] = []
    for event in events:
        for digest in blobs_named_by(event, log.event_types):
            # 32 bytes a blob is all that grows with the log here.
            if (key := bytes.fromhex(digest)) not in taken:
                taken.add(key)
                new.append(digest)
    return new


async def _blob(log: KeptLog, digest: str, archive: _Archive) -> AsyncIterator[bytes]:
    if log.blobs is None:
        raise BlobMissingError(digest)
    file = await asyncio.to_thread(log.blobs.open_sync, digest)
    with file:
        size = os.fstat(file.fileno()).st_size
        yield archive.header(backup_format.BLOBS + digest, size)
        actual, left = hashlib.sha256(), size
        while left:
            chunk = await asyncio.to_thread(_read, file, min(left, PIECE_BYTES))
            if not chunk:
                raise BlobChangedError(digest, "none: it was cut off while it was read")
            actual.update(chunk)
            left -= len(chunk)
            yield chunk
    if actual.hexdigest() != digest:
        raise BlobChangedError(digest, actual.hexdigest())
    yield _padding(size)


def _read(file: BinaryIO, size: int) -> bytes:
    return file.read(size)


class _Archive:
    """A tar file that is written from its beginning to its end, without anybody's going back in it."""

    def __init__(self, made_ns: int) -> None:
        self.made_ns = made_ns
        self._sums = b""

    def entry(self, name: str, content: bytes) -> bytes:
        self._sums += f"{hashlib.sha256(content).hexdigest()}  {name}\n".encode()
        return self.header(name, len(content)) + content + _padding(len(content))

    def header(self, name: str, size: int) -> bytes:
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = size, 0o600, self.made_ns // 1_000_000_000
        return info.tobuf(tarfile.PAX_FORMAT)

    def end(self) -> bytes:
        sums = self._sums
        return self.header(backup_format.SUMS, len(sums)) + sums + _padding(len(sums)) + bytes(2 * tarfile.BLOCKSIZE)


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)
