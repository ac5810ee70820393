"""Batches on their way: while one waits for its record in the log and lands, the next ones are being copied."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from services.sync_engine.transfer.file_copy import LARGE_BYTES, ChunkOutcome, WholeFile
from services.sync_engine.transfer.landing import Landing
from services.sync_engine.transfer.path_order import by_path
from services.sync_engine.transfer.spilled_list import ListSorter
from services.sync_engine.transfer.system_error import shown
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import (
    CopiedFile,
    FailureKind,
    SourceEntry,
    TransferError,
)

_BATCH_FILES = 256
_BATCH_BYTES = 64 << 20
_CHUNK_FILES = 64
_BATCHES_IN_WORK = 4
# What is told of an attempt in which local files failed for several reasons; the first that occurs.
_GRAVEST_FIRST = (FailureKind.LOCAL_FILE_VANISHED, FailureKind.LOCAL_FILE_UNREADABLE, FailureKind.SOURCE_CHANGED)


class ChunkCopier(Protocol):
    """Copies chunks of one run; any number of threads may use one object."""

    def copy_chunk(self, entries: Sequence[SourceEntry]) -> ChunkOutcome:
        """As `FileCopier.copy_chunk`."""

    def abort(self) -> None:
        """As `FileCopier.abort`."""


@dataclass(slots=True)
class PipelineOutcome:
    """Files that landed, and local files that could not be copied. `cut_short`: others were not begun."""

    landed: ListSorter[CopiedFile] = field(default_factory=lambda: ListSorter(CopiedFile, by_path))
    failures: list[TransferError] = field(default_factory=list)
    cut_short: bool = False


def batches(entries: Sequence[SourceEntry]) -> Iterator[list[SourceEntry]]:
    """Cuts at 256 files or 64 MiB; each large file is a batch of its own, so that small ones needn't wait for it."""
    batch: list[SourceEntry] = []
    nbytes = 0
    for entry in entries:
        if entry.size >= LARGE_BYTES:
            yield [entry]
            continue
        if len(batch) == _BATCH_FILES or nbytes + entry.size > _BATCH_BYTES:
            yield batch
            batch, nbytes = [], 0
        batch.append(entry)
        nbytes += entry.size
    if batch:
        yield batch


def run_pipeline(
    entries: Sequence[SourceEntry],
    *,
    copier: ChunkCopier,
    landing: Landing,
    before_landing: Callable[[Sequence[CopiedFile]], None],
    workers: int,
    streams: int,
    control: TransferControl,
) -> PipelineOutcome:
    """Copies and lands everything that can be read. Raises what the destination, the engine or `before_landing` raised,
    with all threads ended. A copy that is wound down lands what is whole before it raises TransferStoppedError.

    `workers` threads copy small files, `streams` others a large one each."""
    outcome = PipelineOutcome()
    in_work: deque[list[Future[ChunkOutcome]]] = deque()
    with (
        ThreadPoolExecutor(max_workers=workers, thread_name_prefix="copy") as small,
        ThreadPoolExecutor(max_workers=streams, thread_name_prefix="stream") as large,
    ):
        try:
            for batch in batches(entries):
                if control.winding_down:
                    outcome.cut_short = True
                    break
                chunks = [batch[start : start + _CHUNK_FILES] for start in range(0, len(batch), _CHUNK_FILES)]
                threads = large if batch[0].size >= LARGE_BYTES else small
                in_work.append([threads.submit(copier.copy_chunk, chunk) for chunk in chunks])
                if len(in_work) == _BATCHES_IN_WORK:
                    _finish(in_work.popleft(), landing, before_landing, outcome)
            while in_work:
                _finish(in_work.popleft(), landing, before_landing, outcome)
        except BaseException:
            copier.abort()
            small.shutdown(wait=True, cancel_futures=True)
            large.shutdown(wait=True, cancel_futures=True)
            raise
    if outcome.cut_short:
        control.raise_before_file()
    return outcome


def _finish(
    chunks: Sequence[Future[ChunkOutcome]],
    landing: Landing,
    before_landing: Callable[[Sequence[CopiedFile]], None],
    outcome: PipelineOutcome,
) -> None:
    whole: list[WholeFile] = []
    for chunk in chunks:
        result = chunk.result()
        whole += result.whole
        outcome.failures += result.failures
        outcome.cut_short = outcome.cut_short or result.cut_short
    if whole:
        copied = [file.copied for file in whole]
        before_landing(copied)
        landing.land(whole)
        outcome.landed.extend(copied)


def local_failure(failures: Sequence[TransferError]) -> TransferError:
    """The one error that tells of all of them: the gravest kind, and every path, those of that kind first."""
    ranked = sorted(failures, key=lambda failure: (_GRAVEST_FIRST.index(failure.kind), failure.paths))
    first = ranked[0]
    others = f" (and {len(ranked) - 1} more: {_others(ranked[1:])})" if len(ranked) > 1 else ""
    return TransferError(first.kind, first.message + others, [path for failure in ranked for path in failure.paths])


def _others(failures: Sequence[TransferError]) -> str:
    names = [f"{shown(failure.paths[0])} {failure.kind}" for failure in failures[:3]]
    return ", ".join(names) + (", …" if len(failures) > 3 else "")
