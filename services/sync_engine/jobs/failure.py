"""Why an attempt did not succeed, as the log and the callers are told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labferry.events.v1 import job_events_pb2
from labferry.sync.v1 import job_pb2, sync_service_pb2
from libs.service_kit.enum_names import ProtoNames
from services.sync_engine.transfer.transport import DifferingFile, FailureKind, TransferError, bytes_unless_text

FAILURE_KINDS = ProtoNames(FailureKind, job_pb2.FailureKind, "FAILURE_KIND")
_MOST_PATHS = 100
_COULD_NOT_CHECK = "a pass could not check: "


@dataclass(frozen=True, slots=True)
class Failure:
    """The class of a failure and the transport's own words. `differing` has both hashes of files that differ."""

    kind: FailureKind
    message: str
    paths: tuple[str, ...] = ()
    differing: tuple[DifferingFile, ...] = ()


def failure_of_transfer(error: TransferError) -> Failure:
    paths = tuple(p.decode(errors="replace") for p in error.paths[:_MOST_PATHS])
    return Failure(error.kind, error.message, paths, error.differing[:_MOST_PATHS])


def failure_of(message: job_pb2.JobFailure) -> Failure:
    return Failure(
        FAILURE_KINDS.from_proto(message.kind),
        message.message,
        tuple(message.paths),
        tuple(_differing(f) for f in message.differing_files),
    )


def failure_of_pass(failed: job_events_pb2.JobVerificationFailed, given_up: Sequence[str]) -> Failure:
    """What a reading back that failed says of the copy, of which these files aren't put back again."""
    report = failed.report
    if not report.expected and failed.occasion != "transfer":
        return Failure(FailureKind.HASH_MISMATCH, _COULD_NOT_CHECK + report.note)
    if report.expected and not report.missing and not report.differing:
        return Failure(FailureKind.HASH_MISMATCH, f"a pass could not check every file: {report.note}")
    missing, differing = wrong_counts(report)
    unreadable = f" ({report.unreadable[0]})" if report.unreadable else ""
    return Failure(
        FailureKind.HASH_MISMATCH,
        words_of_reading(report.expected, missing, differing) + unreadable + _not_put_back(given_up),
        (*report.missing, *report.differing),
    )


def met_what_is_no_folder(failure: Failure) -> bool:
    """Whether such a pass ended at something else in the place of a folder: nothing can be put back behind it."""
    return failure.message.startswith(_COULD_NOT_CHECK + FailureKind.DESTINATION_FILE_DIFFERS)


def words_of_reading(expected: int, missing: int, differing: int) -> str:
    """What a reading back found."""
    return f"read back from the destination: {missing} of {expected} files missing, {differing} differing"


def wrong_counts(report: sync_service_pb2.VerifyReport) -> tuple[int, int]:
    """How many files are missing, and how many differ. The first reports in a log named them only."""
    return max(report.missing_count, len(report.missing)), max(report.differing_count, len(report.differing))


def _not_put_back(paths: Sequence[str]) -> str:
    if not paths:
        return ""
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return (
        f"; not put back again, because it was wrong after that already: {paths[0]}{more}; look at the storage, then"
        " trust the destination again to have it tried anew"
    )


def failure_message(failure: Failure) -> job_pb2.JobFailure:
    return job_pb2.JobFailure(
        kind=FAILURE_KINDS.to_proto(failure.kind),
        message=failure.message,
        paths=failure.paths[:_MOST_PATHS],
        differing_files=[differing_message(f) for f in failure.differing[:_MOST_PATHS]],
    )


def differing_message(file: DifferingFile) -> job_pb2.DifferingFile:
    return job_pb2.DifferingFile(
        path=file.path.decode(errors="replace"),
        path_bytes=bytes_unless_text(file.path),
        old_sha256=file.there_sha256,
        new_sha256=file.here_sha256,
    )


def _differing(message: job_pb2.DifferingFile) -> DifferingFile:
    return DifferingFile(message.path_bytes or message.path.encode(), message.old_sha256, message.new_sha256)
