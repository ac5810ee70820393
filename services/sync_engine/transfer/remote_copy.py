"""The copying of one attempt to a destination behind a tool.

A batch is hashed on this machine, sent by the tool into the attempt's incoming folder, and looked at again on this
machine: the tools don't notice a source that changes under them. Then it is made known, and gets its names.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

from services.sync_engine.transfer.far_side import FarSide, NotLanded
from services.sync_engine.transfer.file_copy import LOCAL_FAILURES
from services.sync_engine.transfer.path_order import by_path
from services.sync_engine.transfer.present import Different, differing_error
from services.sync_engine.transfer.remote_plan import present_digests
from services.sync_engine.transfer.source_file import SourceFiles, copied_from
from services.sync_engine.transfer.spilled_list import ListSorter, in_portions
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import (
    CopiedFile,
    EntryKind,
    Progress,
    SourceEntry,
    TransferError,
)

_BATCH_BYTES = 256 << 20
_HASHERS = 2
_CHUNK_FILES = 32


@dataclass(frozen=True, slots=True)
class OwnCopies:
    """What is there of the job's own: `replaceable` files are unproven, and are kept in the folder `kept_under` until
    others are in their places; of the `staying` ones, which are replaced too, a copy is kept by now."""

    replaceable: frozenset[bytes]
    kept_under: bytes
    staying: set[bytes]


class RemoteCopy:
    """Batches of one attempt: while one is sent, the next is hashed."""

    def __init__(
        self,
        far: FarSide,
        folder: bytes,
        source: SourceFiles,
        target: bytes,
        incoming: bytes,
        own: OwnCopies,
        control: TransferControl,
        progress: Progress,
    ) -> None:
        self._far = far
        self._folder = folder
        self._source = source
        self._target = target
        self._incoming = incoming
        self._own = own
        self._control = control
        self._progress = progress
        self.landed = ListSorter(CopiedFile, by_path)
        self.failures: list[TransferError] = []
        self.cut_short = False

    def run(self, batches: Iterable[list[SourceEntry]], before_landing: Callable[[Sequence[CopiedFile]], None]) -> None:
        with ThreadPoolExecutor(max_workers=_HASHERS, thread_name_prefix="hash") as threads:
            ahead: deque[tuple[list[SourceEntry], list[Future[list[str | TransferError]]]]] = deque()
            try:
                for number, batch in enumerate(batches):
                    ahead.append((batch, [threads.submit(self._hash, c) for c in in_portions(batch, _CHUNK_FILES)]))
                    if number > 0:
                        self._bring(number - 1, *ahead.popleft(), before_landing)
                    if self.cut_short:
                        return
                if ahead:
                    self._bring(number, *ahead.popleft(), before_landing)
            finally:
                threads.shutdown(wait=True, cancel_futures=True)

    def _hash(self, entries: Sequence[SourceEntry]) -> list[str | TransferError]:
        """Of each file its hash, or why it can't be read."""
        hashes: list[str | TransferError] = []
        for entry in entries:
            self._control.raise_if_stopped()
            try:
                hashes.append(self._source.sha256(entry, self._control.look))
            except TransferError as failure:
                hashes.append(failure)
        return hashes

    def _bring(
        self,
        number: int,
        batch: Sequence[SourceEntry],
        hashing: Sequence[Future[list[str | TransferError]]],
        before_landing: Callable[[Sequence[CopiedFile]], None],
    ) -> None:
        self._control.raise_if_stopped()
        if self._control.winding_down:
            self.cut_short = True
            return
        copied: dict[bytes, CopiedFile] = {}
        sendable: list[SourceEntry] = []
        for entry, found in zip(batch, chain.from_iterable(future.result() for future in hashing), strict=True):
            if isinstance(found, TransferError):
                self._note(found)
            else:
                copied[entry.path] = copied_from(entry, found)
                sendable.append(entry)
        folder = self._incoming + b"/%d" % number
        spoiled = self._send(folder, sendable)
        whole = [file for path, file in copied.items() if path not in spoiled]
        if not whole:
            return
        before_landing(whole)
        aside = self._put_aside([file.path for file in whole if file.path in self._own.replaceable])
        refused = self._far.land(folder, self._target, whole, sorted(spoiled), self._own.staying)
        if refused is not None:
            self._refuse_differing(whole, refused)
        self._own.staying.difference_update(copied)
        if aside:
            self._far.remove_files(aside)
        self.landed.extend(whole)
        self._progress.advance(len(whole), 0, whole[-1].path)

    def _put_aside(self, paths: Sequence[bytes]) -> Sequence[bytes]:
        """The job's own earlier copies; their new names. Not into the incoming folder, which is removed with all in it:
        by then what has the name may be what another engine proved."""
        pairs = [(self._target + b"/" + path, self._own.kept_under + b"/" + path) for path in paths]
        if pairs and not self._far.move(pairs, self._incoming, replaced=True):
            self._own.staying.update(paths)
        return [aside for _, aside in pairs]

    def _send(self, folder: bytes, entries: Sequence[SourceEntry]) -> set[bytes]:
        """Files that changed on this machine while they were sent."""
        spoiled: set[bytes] = set()
        if not entries:
            return spoiled

        told = again = 0

        def moved(nbytes: int, current: bytes) -> None:
            nonlocal told
            told += nbytes
            self._progress.advance(0, nbytes, current)

        def moved_again(nbytes: int, current: bytes) -> None:
            nonlocal again
            again += nbytes
            self._control.alive()
            if again > told:
                moved(again - told, current)

        try:
            self._far.send(self._folder, folder, entries, moved)
            return self._touched(entries)
        except TransferError:
            spoiled = self._touched(entries)
            if not spoiled:
                raise
        rest = [entry for entry in entries if entry.path not in spoiled]
        if rest:
            # What the first time brought of them is told already.
            self._far.send(self._folder, folder, rest, moved_again)
        return spoiled | self._touched(rest)

    def _touched(self, entries: Sequence[SourceEntry]) -> set[bytes]:
        touched = set()
        for entry in entries:
            try:
                self._source.refuse_if_touched(entry)
            except TransferError as failure:
                self._note(failure)
                touched.add(entry.path)
        return touched

    def _note(self, failure: TransferError) -> None:
        if failure.kind not in LOCAL_FAILURES:
            raise failure
        self.failures.append(failure)

    def _refuse_differing(self, whole: Sequence[CopiedFile], refused: NotLanded) -> None:
        """Names that were taken at the last moment: the same content is accepted as it is."""
        paths = frozenset(refused.paths)
        present = self._far.names(self._target)
        folders = {above for path in paths for above in _above(path)}
        no_folders = {name.path for name in present if name.path in folders and name.kind is not EntryKind.DIRECTORY}
        taken = [name for name in present if name.path in paths]
        behind = {path for path in paths if any(above in no_folders for above in _above(path))}
        seen = behind.union(name.path for name in taken)
        links = self._far.unlisted(self._target, sorted(paths - seen))
        if not paths <= seen | links:
            raise refused.error
        there = present_digests(self._far, self._target, taken, max((name.size for name in taken), default=0))
        differing = [
            Different(file.path, there.get(file.path), file.sha256)
            for file in whole
            if file.path in paths and there.get(file.path) != file.sha256
        ]
        if differing:
            raise differing_error(differing)


def _above(path: bytes) -> Iterator[bytes]:
    while above := path.rpartition(b"/")[0]:
        yield above
        path = above


def batches(entries: Sequence[SourceEntry], most_files: int) -> Iterator[list[SourceEntry]]:
    """Cuts at `most_files`, or 256 MiB; a larger file is a batch of its own."""
    batch: list[SourceEntry] = []
    nbytes = 0
    for entry in entries:
        if batch and (len(batch) == most_files or nbytes + entry.size > _BATCH_BYTES):
            yield batch
            batch, nbytes = [], 0
        batch.append(entry)
        nbytes += entry.size
    if batch:
        yield batch
