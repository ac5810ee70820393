"""Lists of files as evidence blobs: JSON Lines that people and programs can read years later."""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import msgspec

from libs.event_log.blob_store import BlobStore
from services.sync_engine.jobs.job import Job
from services.sync_engine.transfer.path_order import by_path
from services.sync_engine.transfer.spilled_list import ListWriter, SpilledList, in_portions
from services.sync_engine.transfer.transport import CopiedFile, EntryKind, EvidenceGrade, FileEvidence


class _CopiedLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """`path_base64` only where the name isn't UTF-8; `path` then shows replacement characters."""

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    sha256: str
    kind: EntryKind = EntryKind.FILE
    path_base64: str | None = None
    link_target_base64: str | None = None


class _EvidenceLine(msgspec.Struct, frozen=True, omit_defaults=True):
    path: str
    size: int
    sha256: str
    grade: EvidenceGrade
    kind: EntryKind = EntryKind.FILE
    path_base64: str | None = None


_COPIED = msgspec.json.Decoder(_CopiedLine)
_EVIDENCE = msgspec.json.Decoder(_EvidenceLine)
_ENCODER = msgspec.json.Encoder()
_TOGETHER = 1000
R = TypeVar("R", bound=msgspec.Struct)


def copied_lines(files: Iterable[CopiedFile]) -> Iterator[bytes]:
    """One line a file, in portions; sorted as the files are."""
    for portion in in_portions(files, _TOGETHER):
        yield _ENCODER.encode_lines(
            [
                _CopiedLine(
                    path=f.path.decode(errors="replace"),
                    size=f.size,
                    mtime_ns=f.mtime_ns,
                    ctime_ns=f.ctime_ns,
                    inode=f.inode,
                    sha256=f.sha256,
                    kind=f.kind,
                    path_base64=_base64_unless_text(f.path),
                    link_target_base64=None if f.link_target is None else base64.b64encode(f.link_target).decode(),
                )
                for f in portion
            ]
        )


def encode_copied(files: Iterable[CopiedFile]) -> bytes:
    """The lines of a batch, sorted by path."""
    return b"".join(copied_lines(sorted(files, key=by_path)))


def read_copied(blobs: BlobStore, digest: str) -> SpilledList[CopiedFile]:
    """The files of a blob, in its order. Errors as `BlobStore.read`. For worker threads."""
    return _read(blobs, digest, CopiedFile, _copied_file)


def read_few_copied(blobs: BlobStore, digest: str, most: int) -> Sequence[CopiedFile]:
    """The first and the last files of a blob, `most` of each. Errors as `BlobStore.read`. For worker threads."""
    with blobs.open_checked_sync(digest) as blob:
        return [_copied_file(line) for line in (*islice(blob, most), *deque(blob, most))]


def landings(blobs: BlobStore, job: Job) -> Iterator[CopiedFile]:
    """What the job put into place itself, over all its attempts. Errors as `BlobStore.read`. For worker threads."""
    for blob in job.landing_blobs:
        yield from read_copied(blobs, blob)


def sent_among(blobs: BlobStore, job: Job, texts: Sequence[str]) -> Sequence[str]:
    """Those of the paths, as texts show them, that the job put into place itself. As `landings`."""
    sent = frozenset(texts).intersection(file.path.decode(errors="replace") for file in landings(blobs, job))
    return [text for text in texts if text in sent]


def _copied_file(line: bytes) -> CopiedFile:
    read = _COPIED.decode(line)
    return CopiedFile(
        path=read.path.encode() if read.path_base64 is None else base64.b64decode(read.path_base64),
        size=read.size,
        mtime_ns=read.mtime_ns,
        ctime_ns=read.ctime_ns,
        inode=read.inode,
        sha256=read.sha256,
        kind=read.kind,
        link_target=None if read.link_target_base64 is None else base64.b64decode(read.link_target_base64),
    )


def evidence_lines(evidence: Iterable[FileEvidence]) -> Iterator[bytes]:
    """One line a file, in portions, in the order given."""
    for portion in in_portions(evidence, _TOGETHER):
        yield _ENCODER.encode_lines(
            [
                _EvidenceLine(
                    path=e.path.decode(errors="replace"),
                    size=e.size,
                    sha256=e.sha256,
                    grade=e.grade,
                    kind=e.kind,
                    path_base64=_base64_unless_text(e.path),
                )
                for e in portion
            ]
        )


def read_evidence(blobs: BlobStore, digest: str) -> SpilledList[FileEvidence]:
    """As `read_copied`, of what was read back."""
    return _read(blobs, digest, FileEvidence, _file_evidence)


def _file_evidence(line: bytes) -> FileEvidence:
    read = _EVIDENCE.decode(line)
    return FileEvidence(
        path=read.path.encode() if read.path_base64 is None else base64.b64decode(read.path_base64),
        size=read.size,
        sha256=read.sha256,
        grade=read.grade,
        kind=read.kind,
    )


def _read(blobs: BlobStore, digest: str, record: type[R], of_line: Callable[[bytes], R]) -> SpilledList[R]:
    found = ListWriter(record)
    with blobs.open_checked_sync(digest) as blob:
        for line in blob:
            found.append(of_line(line))
    return found.finish()


def _base64_unless_text(path: bytes) -> str | None:
    try:
        path.decode()
    except UnicodeDecodeError:
        return base64.b64encode(path).decode()
    return None
