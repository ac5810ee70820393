"""Reads back what a destination holds, compares it with the manifest, and records what was found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeVar

from google.protobuf.message import Message

from labferry.events.v1 import job_events_pb2 as events
from labferry.sync.v1 import sync_service_pb2
from libs.event_log.blob_store import BlobStore
from libs.run_tree.run_path import RunPath
from services.sync_engine.jobs.failed_pass import failed_pass, failed_proof, is_evidence_of
from services.sync_engine.jobs.failure import failure_of_transfer, words_of_reading
from services.sync_engine.jobs.file_list import evidence_lines, landings, read_copied
from services.sync_engine.jobs.job import (
    AUDIT,
    BEFORE_CLEANUP,
    PROVEN_STATES,
    REQUEST,
    SCRUB,
    Job,
    JobState,
    WaitCondition,
)
from services.sync_engine.jobs.job_history import JobHistoryError, evolve
from services.sync_engine.jobs.retry import after_failure
from services.sync_engine.jobs.sealed_records import keep_sealed_records
from services.sync_engine.jobs.superseded_files import without_superseded
from services.sync_engine.jobs.work_in_hand import DoInThread, WorkInHand
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.transfer.destination import Destination
from services.sync_engine.transfer.path_order import InStep
from services.sync_engine.transfer.system_error import shown
from services.sync_engine.transfer.transfer_control import TransferControl, TransferStoppedError
from services.sync_engine.transfer.transport import (
    CopiedFile,
    EvidenceGrade,
    FailureKind,
    Progress,
    TransferError,
    VerifyOutcome,
)

T = TypeVar("T")
_MOST_PATHS = 100
SKIPPED_OVERSIZE = "verify_skipped_oversize"


class Occasion(StrEnum):
    """Why a destination was read back."""

    TRANSFER = "transfer"
    REQUEST = REQUEST
    AUDIT = AUDIT
    SCRUB = SCRUB
    CLEANUP = BEFORE_CLEANUP


_WHILE_AMENDED = frozenset({Occasion.REQUEST, Occasion.AUDIT})
"""Before a cleanup there is no such excuse: nothing is deleted whose copy isn't there."""


@dataclass(frozen=True, slots=True)
class Verification:
    """One reading back: what was found, and the event that records it."""

    outcome: VerifyOutcome
    report: sync_service_pb2.VerifyReport
    event: Message


async def verify_destination(
    bench: Workbench,
    job: Job,
    destination: Destination,
    occasion: Occasion,
    do: DoInThread,
    control: TransferControl,
    progress: Progress,
    max_stream_bytes: int | None = None,
) -> Verification:
    """One pass over a destination, read by `do`. TransferError when it couldn't check, which is never a pass.

    `max_stream_bytes`: the largest file to download for it, where that is more than what is configured, or was allowed
    for this copy, which keeps it."""
    if job.files_blob is None or job.manifest_blob is None:
        raise JobHistoryError(f"job {job.job_id} is {job.state} without a manifest")
    files_blob = job.files_blob
    expected = await bench.threads.run(lambda: read_copied(bench.blobs, files_blob))
    target = RunPath.parse(job.run).below_equipment
    verify = destination.transport.verify
    most = max(job.max_stream_bytes, max_stream_bytes or 0)
    began = bench.clock()
    outcome = await do(lambda: verify(target, expected, control=control, progress=progress, max_stream_bytes=most))
    if outcome.proven and job.sealed:
        records = await keep_sealed_records(bench, job, destination, do, control, leased=False)
        outcome = records.beside(outcome)
    return await verification_of(bench, job, expected, outcome, occasion, began, max_stream_bytes or 0)


async def verification_of(
    bench: Workbench,
    job: Job,
    expected: Sequence[CopiedFile],
    outcome: VerifyOutcome,
    occasion: Occasion,
    began: datetime,
    max_stream_bytes: int = 0,
) -> Verification:
    """What a reading of these files that `began` then means: a pass only when every one of them is proven.
    `max_stream_bytes`: the bound that an operator raised for it."""
    if occasion in _WHILE_AMENDED:
        expected, outcome = await without_superseded(bench, job, expected, outcome)
    report = verify_report(job, outcome, bench.clock())
    if not outcome.proven or not await bench.threads.run(lambda: read_back_whole(outcome, expected)):
        report.passed = False
        told = failed_pass if job.state in PROVEN_STATES else failed_proof
        failed = await bench.threads.run(lambda: told(bench.blobs, expected, outcome, report, occasion))
        failed.begun_time.FromDatetime(began)
        failed.max_stream_bytes = max_stream_bytes
        return Verification(outcome, report, failed)
    place = bench.destination(job)
    passed = events.JobVerified(
        manifest_sha256=job.manifest_blob or "",
        expected=outcome.expected,
        hashed=outcome.hashed,
        matched=outcome.matched,
        method=outcome.method,
        grade=outcome.grade.value,
        host=outcome.host,
        note=outcome.note,
        evidence_blob=await bench.threads.run(lambda: bench.blobs.put_pieces_sync(evidence_lines(outcome.evidence))),
        occasion=occasion.value,
        max_stream_bytes=max_stream_bytes,
        transport="" if place is None else place.kind,
        tools={} if place is None else place.transport.tools,
    )
    passed.begun_time.FromDatetime(began)
    return Verification(outcome, report, passed)


def inconclusive(
    bench: Workbench, job: Job, occasion: Occasion, error: TransferError, max_stream_bytes: int = 0
) -> Verification:
    """The record of a pass that could not check. `max_stream_bytes` as in `verification_of`."""
    event = could_not_check(bench, job, occasion, f"{error.kind}: {error.message}")
    event.max_stream_bytes = max_stream_bytes
    outcome = VerifyOutcome(0, 0, 0, (), (), (), (), "", EvidenceGrade.E0, "", event.report.note)
    return Verification(outcome, event.report, event)


def could_not_check(bench: Workbench, job: Job, occasion: Occasion, why: str) -> events.JobVerificationFailed:
    """The event of a pass of which no file is known any better."""
    report = sync_service_pb2.VerifyReport(run=job.run, destination=job.destination, job_id=job.job_id, note=why)
    report.verified_time.FromDatetime(bench.clock())
    return events.JobVerificationFailed(report=report, occasion=occasion.value)


def read_back_whole(outcome: VerifyOutcome, expected: Sequence[CopiedFile]) -> bool:
    """Whether there is evidence of every file, as `is_evidence_of` asks for."""
    evidence = InStep(outcome.evidence)
    return all(is_evidence_of(file, evidence.at(file.path)) for file in expected)


def verify_report(job: Job, outcome: VerifyOutcome, at: datetime) -> sync_service_pb2.VerifyReport:
    report = sync_service_pb2.VerifyReport(
        run=job.run,
        destination=job.destination,
        job_id=job.job_id,
        passed=outcome.proven,
        expected=outcome.expected,
        hashed=outcome.hashed,
        matched=outcome.matched,
        missing=_shown(outcome.missing),
        differing=_shown(outcome.differing),
        missing_count=len(outcome.missing),
        differing_count=len(outcome.differing),
        unexpected=_shown(outcome.unexpected),
        unreadable=[f"{shown(file.path)}: {file.words}" for file in outcome.unreadable[:_MOST_PATHS]],
        method=outcome.method,
        grade=outcome.grade.value,
        host=outcome.host,
        note="; ".join(filter(None, (outcome.note, skipped_oversize(outcome)))),
    )
    report.verified_time.FromDatetime(at)
    return report


def _shown(paths: Sequence[bytes]) -> list[str]:
    return [p.decode(errors="replace") for p in paths[:_MOST_PATHS]]


def skipped_oversize(outcome: VerifyOutcome) -> str:
    """What to say of files that were too large to be downloaded; empty when there are none."""
    if not outcome.oversize:
        return ""
    first, more = outcome.oversize[0].decode(errors="replace"), len(outcome.oversize) - 1
    others = f" and {more} more" if more else ""
    return f"{SKIPPED_OVERSIZE}: {first}{others} can only be downloaded to be checked, and may not be: it is too large"


def waits_for_a_larger_bound(job: Job) -> bool:
    """Whether a verification with a larger `max_stream_bytes` is what the job waits for."""
    wait = job.wait
    return (
        job.state is JobState.AWAITING_VERIFY
        and wait is not None
        and wait.condition is WaitCondition.OPERATOR
        and wait.detail.startswith(SKIPPED_OVERSIZE)
    )


def what_follows(bench: Workbench, job: Job, found: Verification) -> Sequence[Message]:
    """What a pass that failed means for a job that awaits its verification; nothing when it passed."""
    if found.report.passed:
        return ()
    now, failure = bench.clock(), failure_of_transfer(_what_is_wrong(found.outcome))
    return (after_failure(evolve(job, found.event, now), failure, now, bench.jitter()),)


def ends_the_job(follows: Sequence[Message]) -> bool:
    """Whether what was found wrong is to be kept aside before it is recorded."""
    return any(isinstance(event, events.JobFailed) for event in follows)


def quarantine(
    blobs: BlobStore, job: Job, destination: Destination, outcome: VerifyOutcome, control: TransferControl
) -> None:
    """Nobody may take for the run's what was sent twice and is wrong: it is kept aside before the job fails. What an
    earlier job proved and this one only counts on stays, wrong as it may be: there may be no other copy. For worker
    threads. TransferError, TransferStoppedError."""
    target = RunPath.parse(job.run).below_equipment
    wrong = frozenset(outcome.differing).intersection(file.path for file in landings(blobs, job))
    destination.transport.set_aside(target, sorted(wrong), job_id=job.job_id, attempt=job.attempt, control=control)


def is_inconclusive(outcome: VerifyOutcome) -> bool:
    """Nothing is known to be wrong, and not everything could be looked at."""
    return bool(outcome.oversize) and not outcome.missing and not outcome.differing


class VerifyStep:
    """Takes a job from `awaiting_verify` to `verified`, or back to another attempt."""

    def __init__(self, bench: Workbench, in_hand: WorkInHand) -> None:
        self._bench = bench
        self._in_hand = in_hand

    async def take(self, job: Job) -> datetime | None:
        """Returns when to look again although no event will say so; None otherwise."""
        bench = self._bench
        destination = bench.destination(job)
        if waits_for_a_larger_bound(job) and not await self._may_download_all(job, destination):
            # All the others would be downloaded anew, and nothing else come of it: VerifyRun is the way out, or another
            # configuration.
            return None
        if destination is None:
            return await bench.hold_without_destination(job)
        control = bench.control_of(job)
        progress = bench.board.open(job.job_id)

        async def do(work: Callable[[], T]) -> T:
            return await self._in_hand.do(job.job_id, control, progress, work)

        try:
            found = await verify_destination(bench, job, destination, Occasion.TRANSFER, do, control, progress)
            follows = what_follows(bench, job, found)
            if ends_the_job(follows):
                await do(lambda: quarantine(bench.blobs, job, destination, found.outcome, control))
        except TransferStoppedError:
            # Nothing to record: the job still awaits its verification, which is begun anew.
            return None
        except TransferError as error:
            return await bench.fail(job, error, destination)
        finally:
            bench.board.close(job.job_id)
        if is_inconclusive(found.outcome):
            return await bench.hold(job, WaitCondition.OPERATOR, skipped_oversize(found.outcome), None)
        # Recorded together: after a crash in between, the same pass would be counted twice.
        await bench.conclude(job, found.event, *follows)
        return None

    async def _may_download_all(self, job: Job, destination: Destination | None) -> bool:
        if destination is None or destination.max_stream_bytes is None:
            return destination is not None
        bench, most = self._bench, max(job.max_stream_bytes, destination.max_stream_bytes)
        expected = await bench.threads.run(lambda: read_copied(bench.blobs, job.files_blob or ""))
        return all(file.size <= most for file in expected)


def _what_is_wrong(outcome: VerifyOutcome) -> TransferError:
    if outcome.expected == 0:
        return TransferError(FailureKind.NOTHING_TO_VERIFY, "the run holds no file whose arrival could be proven")
    wrong = (*outcome.missing, *outcome.differing)
    words = words_of_reading(outcome.expected, len(outcome.missing), len(outcome.differing))
    named = f": {shown(wrong[0])}" + (f" and {len(wrong) - 1} more" if len(wrong) > 1 else "") if wrong else ""
    return TransferError(FailureKind.HASH_MISMATCH, words + named, wrong)
