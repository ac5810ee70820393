"""Verification: what a mounted destination holds, read past this machine's cache and compared (SPEC §4)."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from libs.run_tree.manifest import is_changing_file
from services.sync_engine.transfer.chunk_reader import (
    CHUNK_BYTES,
    CHUNK_FILES,
    Checked,
    ChunkReader,
    Expected,
    Verdict,
)
from services.sync_engine.transfer.destination_root import DestinationRoot
from services.sync_engine.transfer.path_order import InStep
from services.sync_engine.transfer.present import PresentName, names_present
from services.sync_engine.transfer.second_process.assisted_reading import AssistedReader
from services.sync_engine.transfer.second_process.lanes import WITH_LANES, lanes_for
from services.sync_engine.transfer.second_process.messages import VerifyLane
from services.sync_engine.transfer.second_process.process import SecondProcess
from services.sync_engine.transfer.spilled_list import ListWriter, spilled
from services.sync_engine.transfer.storage_witness import StorageWitness
from services.sync_engine.transfer.system_error import shown
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import (
    CopiedFile,
    EntryKind,
    EvidenceGrade,
    FailureKind,
    FileEvidence,
    Progress,
    ProgressPhase,
    TransferError,
    UnreadableFile,
    VerifyOutcome,
)

METHOD = "uncached_read"
_CHUNKS_IN_WORK = 64


def read_back(
    root: DestinationRoot,
    target: bytes,
    expected: Sequence[CopiedFile],
    whole: Sequence[CopiedFile],
    *,
    control: TransferControl,
    progress: Progress,
    second: SecondProcess | None = None,
) -> VerifyOutcome:
    """A file that the storage can't read although it reads others differs. Raises TransferError when a file could not
    be checked, or the destination vanished meanwhile."""
    progress.begin(ProgressPhase.VERIFYING, len(expected), sum(file.size for file in expected))
    present = spilled(PresentName, names_present(root, target))
    reader = ChunkReader(root.fd, target, StorageWitness(root, target, present), control, progress)
    found = _Found()
    in_work: deque[Future[list[Checked]]] = deque()
    local, request = root.filesystem, VerifyLane(target)
    with (
        lanes_for(second, local, len(expected), request, lambda: root.fd, control) as lanes,
        ThreadPoolExecutor(WITH_LANES if lanes else local.workers, thread_name_prefix="verify") as small,
        ThreadPoolExecutor(max_workers=root.filesystem.streams, thread_name_prefix="verify large") as large,
    ):
        try:
            check = reader.check if lanes is None else AssistedReader(reader, lanes, control, progress).check
            there = InStep(present)
            for chunk in _chunks(Expected(file, there.at(file.path)) for file in expected):
                threads = large if chunk[0].file.size > CHUNK_BYTES else small
                in_work.append(threads.submit(check, chunk))
                if len(in_work) == _CHUNKS_IN_WORK:
                    found.note(in_work.popleft().result())
            while in_work:
                found.note(in_work.popleft().result())
        except BaseException:
            small.shutdown(wait=True, cancel_futures=True)
            large.shutdown(wait=True, cancel_futures=True)
            raise
    found.refuse_if_none_was_read()
    # A destination that went away looks empty; that is no missing file but a check that couldn't check.
    root.refuse_if_gone()
    return found.outcome(_unexpected(present, whole), root.filesystem.note)


def _chunks(files: Iterable[Expected]) -> Iterator[list[Expected]]:
    """Cut at 64 files or 8 MiB: of large files each is a thread's own, for hashing is what takes its time."""
    chunk: list[Expected] = []
    nbytes = 0
    for one in files:
        if chunk and (len(chunk) == CHUNK_FILES or nbytes + one.file.size > CHUNK_BYTES):
            yield chunk
            chunk, nbytes = [], 0
        chunk.append(one)
        nbytes += one.file.size
    if chunk:
        yield chunk


def _unexpected(present: Sequence[PresentName], expected: Sequence[CopiedFile]) -> tuple[bytes, ...]:
    known = InStep(expected)
    return tuple(
        name.path
        for name in present
        if name.kind is not EntryKind.DIRECTORY and known.at(name.path) is None and not is_changing_file(name.path)
    )


class _Found:
    """What the files of one reading came to, noted in the order of their paths."""

    def __init__(self) -> None:
        self._expected = self._hashed = self._matched = 0
        self._missing: list[bytes] = []
        self._differing: list[bytes] = []
        self._unreadable: list[UnreadableFile] = []
        self._evidence = ListWriter(FileEvidence)

    def note(self, checked: Sequence[Checked]) -> None:
        for one in checked:
            if one.evidence is not None:
                self._evidence.append(one.evidence)
            if one.verdict is Verdict.MISSING:
                self._missing.append(one.file.path)
            elif one.verdict is Verdict.DIFFERS:
                self._differing.append(one.file.path)
            if one.words:
                self._unreadable.append(UnreadableFile(one.file.path, one.words))
            if one.file.kind is EntryKind.FILE:
                self._expected += 1
                self._hashed += one.evidence is not None
                self._matched += one.verdict is Verdict.MATCHED

    def refuse_if_none_was_read(self) -> None:
        """TransferError when there were several files, and the storage could read none."""
        if len(self._unreadable) > 1 and not self._hashed:
            first = self._unreadable[0]
            raise TransferError(
                FailureKind.NETWORK,
                f"reading back at the destination: not one file can be read: {shown(first.path)}: {first.words}",
                [file.path for file in self._unreadable],
            )

    def outcome(self, unexpected: tuple[bytes, ...], note: str) -> VerifyOutcome:
        return VerifyOutcome(
            expected=self._expected,
            hashed=self._hashed,
            matched=self._matched,
            missing=tuple(self._missing),
            differing=tuple(self._differing),
            unexpected=unexpected,
            evidence=self._evidence.finish(),
            method=METHOD,
            grade=EvidenceGrade.E4,
            host=socket.gethostname(),
            note=note,
            unreadable=tuple(self._unreadable),
        )
