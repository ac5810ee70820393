"""Lists that lie on disk when they are long: what a job keeps in memory doesn't grow with the number of its files.

The disk part is a file without a name, in the folder that `spill_into` was told: a crash leaves nothing of it.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import merge
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, Generic, TypeVar, overload

import msgspec

from libs.event_log.own_disk import on_own_disk

R = TypeVar("R", bound=msgspec.Struct)
T = TypeVar("T")

_KEPT = 2048
"""So many records stay in memory; a multiple of `_CHUNK`."""
_CHUNK = 64
_MOST_RUNS = 256
_PIECE = 1 << 18
_ENCODER = msgspec.msgpack.Encoder()
_WIDE_ENCODER = msgspec.json.Encoder()
_WIDE = b"["
"""What JSON's lists begin with, and none of msgpack's."""
_folder: Path | None = None


def spill_into(folder: Path) -> None:
    """From now on the lists of this process lie in this folder, which must be there; before, in the system's own for
    temporary files, which may be memory."""
    global _folder
    _folder = folder


def spill_file() -> IO[bytes]:
    """A new file there, without a name. Errors of `on_own_disk`."""
    with on_own_disk():
        return tempfile.TemporaryFile(prefix="labferry-list-", dir=_folder)


def separated(file: IO[bytes], mark: bytes) -> Iterator[bytes]:
    """What a file holds from its beginning, cut at each mark, which also ends it."""
    file.seek(0)
    rest = b""
    while piece := file.read(_PIECE):
        *whole, rest = (rest + piece).split(mark)
        yield from whole


def in_portions(records: Iterable[T], count: int) -> Iterator[list[T]]:
    """The records in their order, so many at once; the last portion has what is left."""
    remaining = iter(records)
    while portion := list(islice(remaining, count)):
        yield portion


class _ChunkFile(Generic[R]):
    """Chunks of `_CHUNK` records each. Any thread may read."""

    def __init__(self, record: type[R]) -> None:
        self._decoder = msgspec.msgpack.Decoder(list[record])  # type: ignore[valid-type]
        self._wide_decoder = msgspec.json.Decoder(list[record])  # type: ignore[valid-type]
        self._ends = array("Q", [0])
        with spill_file() as file:
            self._descriptor = os.dup(file.fileno())
        # Lists are handed on and dropped like any value: whoever held one last gives the disk back.
        weakref.finalize(self, os.close, self._descriptor)

    @property
    def count(self) -> int:
        return len(self._ends) - 1

    def append(self, records: Sequence[R]) -> None:
        for start in range(0, len(records), _CHUNK):
            content = memoryview(_encoded(records[start : start + _CHUNK]))
            end = self._ends[-1]
            with on_own_disk():
                while content:
                    written = os.pwrite(self._descriptor, content, end)
                    content, end = content[written:], end + written
            self._ends.append(end)

    def read(self, number: int) -> list[R]:
        begin, end = self._ends[number], self._ends[number + 1]
        content = os.pread(self._descriptor, end - begin, begin)
        wide = content.startswith(_WIDE)
        records: list[R] = self._wide_decoder.decode(content) if wide else self._decoder.decode(content)
        return records

    def between(self, first: int, end: int) -> Iterator[R]:
        return chain.from_iterable(map(self.read, range(first, end)))


def _encoded(records: Sequence[msgspec.Struct]) -> bytes:
    try:
        return _ENCODER.encode(records)
    except OverflowError:
        # A time of a file before 1677 or after 2554, in nanoseconds: NTFS's own zero is one.
        return _WIDE_ENCODER.encode(records)


class SpilledList(Sequence[R]):
    """Immutable; made by `ListWriter` and `ListSorter`. It can be read as often as wanted, by any thread."""

    def __init__(self, chunks: _ChunkFile[R] | None, tail: list[R]) -> None:
        self._chunks = chunks
        self._tail = tail
        self._on_disk = 0 if chunks is None else chunks.count * _CHUNK

    def __len__(self) -> int:
        return self._on_disk + len(self._tail)

    def __iter__(self) -> Iterator[R]:
        if self._chunks is None:
            return iter(self._tail)
        return chain(self._chunks.between(0, self._chunks.count), self._tail)

    def __reversed__(self) -> Iterator[R]:
        yield from reversed(self._tail)
        for number in reversed(range(0 if self._chunks is None else self._chunks.count)):
            assert self._chunks is not None
            yield from reversed(self._chunks.read(number))

    @overload
    def __getitem__(self, index: int) -> R: ...
    @overload
    def __getitem__(self, index: slice) -> list[R]: ...
    def __getitem__(self, index: int | slice) -> R | list[R]:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if start < stop and step == 1:
                first = start // _CHUNK
                if self._chunks is not None and start < self._on_disk:
                    here = chain(self._chunks.between(first, self._chunks.count), self._tail)
                    return list(islice(here, start - first * _CHUNK, stop - first * _CHUNK))
                return self._tail[start - self._on_disk : stop - self._on_disk]
            return [self[number] for number in range(start, stop, step)]
        number = range(len(self))[index]
        if self._chunks is None or number >= self._on_disk:
            return self._tail[number - self._on_disk]
        return self._chunks.read(number // _CHUNK)[number % _CHUNK]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]


class ListWriter(Generic[R]):
    """A list of records that come in the order in which they are wanted; one thread at a time."""

    def __init__(self, record: type[R]) -> None:
        self._record = record
        self._chunks: _ChunkFile[R] | None = None
        self._tail: list[R] = []

    def append(self, record: R) -> None:
        self._tail.append(record)
        if len(self._tail) == _KEPT:
            self._spill()

    def _spill(self) -> None:
        self._chunks = self._chunks or _ChunkFile(self._record)
        self._chunks.append(self._tail)
        self._tail = []

    def extend(self, records: Iterable[R]) -> None:
        coming = iter(records)
        while part := list(islice(coming, _KEPT - len(self._tail))):
            self._tail += part
            if len(self._tail) == _KEPT:
                self._spill()

    def finish(self) -> SpilledList[R]:
        return SpilledList(self._chunks, self._tail)


def spilled(record: type[R], records: Iterable[R]) -> SpilledList[R]:
    """A list of what comes, in that order."""
    writer = ListWriter(record)
    writer.extend(records)
    return writer.finish()


class ListSorter(Generic[R]):
    """A list of records that come in any order, sorted by `key`; of equal keys the one that came first is first. One
    thread at a time."""

    def __init__(self, record: type[R], key: Callable[[R], Any]) -> None:
        self._record = record
        self._key = key
        self._tail: list[R] = []
        self._chunks: _ChunkFile[R] | None = None
        self._runs: list[SpilledList[R] | range] = []
        self._in_order = True
        self._last: Any = None

    def add(self, record: R) -> None:
        self._tail.append(record)
        if len(self._tail) == _KEPT:
            self._spill()

    def extend(self, records: Iterable[R]) -> None:
        for record in records:
            self.add(record)

    def _spill(self) -> None:
        self._sort_tail()
        self._chunks = self._chunks or _ChunkFile(self._record)
        first = self._chunks.count
        self._chunks.append(self._tail)
        self._runs.append(range(first, self._chunks.count))
        self._tail = []

    def _sort_tail(self) -> None:
        self._tail.sort(key=self._key)
        if self._tail:
            self._in_order = self._in_order and (not self._runs or self._last <= self._key(self._tail[0]))
            self._last = self._key(self._tail[-1])

    def finish(self) -> SpilledList[R]:
        self._sort_tail()
        if self._in_order:
            return SpilledList(self._chunks, self._tail)
        while len(self._runs) >= _MOST_RUNS:
            # Each run that is merged has a chunk in memory.
            first, self._runs = self._runs[:_MOST_RUNS], self._runs[_MOST_RUNS:]
            self._runs.insert(0, self._merged(map(self._records, first)))
        return self._merged(chain(map(self._records, self._runs), [self._tail]))

    def _records(self, run: SpilledList[R] | range) -> Iterable[R]:
        if isinstance(run, range):
            assert self._chunks is not None
            return self._chunks.between(run.start, run.stop)
        return run

    def _merged(self, runs: Iterable[Iterable[R]]) -> SpilledList[R]:
        return spilled(self._record, merge(*runs, key=self._key))
