"""What a reading that failed leaves: of a proven copy evidence of the files that matched and a list of the others, of
one that is not proven yet a list of those that are missing or differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from labferry.events.v1 import job_events_pb2 as events
from labferry.sync.v1 import sync_service_pb2
from libs.event_log.blob_store import BlobStore
from services.sync_engine.jobs.file_list import copied_lines, evidence_lines
from services.sync_engine.transfer.path_order import InStep
from services.sync_engine.transfer.transport import CopiedFile, EvidenceGrade, FileEvidence, VerifyOutcome

_GOOD_ENOUGH = frozenset({EvidenceGrade.E4, EvidenceGrade.E5})


def is_evidence_of(file: CopiedFile, read: FileEvidence | None) -> bool:
    """Whether the file was read from behind the cache or hashed by the far host (E4), and has the hash that was sent:
    nothing less is verified (ARCHITECTURE §4)."""
    return read is not None and read.grade in _GOOD_ENOUGH and (read.size, read.sha256) == (file.size, file.sha256)


def failed_pass(
    blobs: BlobStore,
    expected: Sequence[CopiedFile],
    outcome: VerifyOutcome,
    report: sync_service_pb2.VerifyReport,
    occasion: str,
) -> events.JobVerificationFailed:
    """The event of a reading of a proven copy's files that not all passed. For worker threads."""
    read = InStep(outcome.evidence)
    unproven = (file for file in expected if not is_evidence_of(file, read.at(file.path)))
    return events.JobVerificationFailed(
        report=report,
        occasion=occasion,
        evidence_blob=_put(blobs, evidence_lines(_matched(expected, outcome))),
        unproven_blob=_put(blobs, copied_lines(unproven)),
    )


def failed_proof(
    blobs: BlobStore,
    expected: Sequence[CopiedFile],
    outcome: VerifyOutcome,
    report: sync_service_pb2.VerifyReport,
    occasion: str,
) -> events.JobVerificationFailed:
    """The event of a reading of a copy that was not proven yet, and isn't by it. For worker threads."""
    wrong = frozenset((*outcome.missing, *outcome.differing))
    return events.JobVerificationFailed(
        report=report,
        occasion=occasion,
        differing_blob=_put(blobs, copied_lines(file for file in expected if file.path in wrong)),
    )


def _matched(expected: Sequence[CopiedFile], outcome: VerifyOutcome) -> Iterator[FileEvidence]:
    read = InStep(outcome.evidence)
    for file in expected:
        evidence = read.at(file.path)
        if evidence is not None and is_evidence_of(file, evidence):
            yield evidence


def _put(blobs: BlobStore, pieces: Iterator[bytes]) -> str:
    """The digest of a blob; of no pieces none is kept, and it is empty."""
    first = next(pieces, None)
    return "" if first is None else blobs.put_pieces_sync(chain((first,), pieces))
