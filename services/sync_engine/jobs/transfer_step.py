"""One attempt of a job: the gate, the copy, and the closing of the manifest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from labferry.events.v1 import job_events_pb2 as events
from libs.run_tree.creation_errors import CreationError
from libs.run_tree.manifest import ManifestEntry, manifest_line
from libs.service_kit.errors import LabferryError
from services.sync_engine.errors import EquipmentNotConfiguredError, RunNotFoundError
from services.sync_engine.jobs.acceptances import unspent
from services.sync_engine.jobs.amendment import lists_of_deletions
from services.sync_engine.jobs.commands import decide_start
from services.sync_engine.jobs.copy_run import Errand, copy_run
from services.sync_engine.jobs.failure import Failure, failure_of_transfer
from services.sync_engine.jobs.file_list import copied_lines, read_copied
from services.sync_engine.jobs.gate_watch import GateWatch
from services.sync_engine.jobs.job import Job, WaitCondition
from services.sync_engine.jobs.job_history import JobHistoryError
from services.sync_engine.jobs.landing_journal import LandingJournal
from services.sync_engine.jobs.retry import GATE_PAUSE, SOURCE_PAUSE
from services.sync_engine.jobs.work_in_hand import WorkInHand
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.runs.location import LocatedRun
from services.sync_engine.runs.verified_tree import ChangedFile, ChangesSince, what_changed_since
from services.sync_engine.transfer.destination import Destination
from services.sync_engine.transfer.transfer_control import StopReason, TransferStoppedError
from services.sync_engine.transfer.transport import (
    CopiedFile,
    DifferingFile,
    EntryKind,
    FailureKind,
    TransferError,
)
from services.sync_engine.validation.presync_gate import GateView, refusal
from services.sync_engine.validation.walk import WalkError

_MOST_NAMED = 5


class TransferStep:
    """Takes a queued job to `awaiting_verify`, or records why it can't be taken there now."""

    def __init__(self, bench: Workbench, gates: GateWatch, in_hand: WorkInHand) -> None:
        self._bench = bench
        self._gates = gates
        self._in_hand = in_hand

    async def take(self, job: Job) -> datetime | None:
        """Returns when to look again although no event will say so; None otherwise."""
        bench = self._bench
        destination = bench.destination(job)
        if destination is None:
            return await bench.hold_without_destination(job)
        suspicion = bench.why_suspected(job.equipment_id, job.destination)
        if suspicion:
            return await bench.hold(job, WaitCondition.OPERATOR, suspicion, None)
        try:
            view = await bench.gate.look(job.run, bench.clock())
            located = view.located
            if not view.is_open:
                return await self._hold_at_gate(job, refusal(view))
            amended = await self._amended(job)
            accepted = await unspent(bench.log, view.run, job.destination, amended)
            since = await self._since_amended(job, located, amended)
            if since is not None and (refused := since.refused(accepted)):
                changed = _verified_files_changed(refused)
                return await self._hold_at_gate(job, changed.message, changed)
            down = await bench.watch.look(job.equipment_id, destination)
        except TransferError as error:
            return await bench.fail(job, error, destination)
        except (EquipmentNotConfiguredError, LabferryError, CreationError, WalkError) as error:
            return await self._without_run(job, error)
        if down is not None:
            await bench.hold_unreachable(job, down)
            return None
        kept = since.kept if since is not None else ()
        return await self._attempt(job, view, Errand(located, destination.transport, kept, accepted), destination)

    async def _attempt(self, job: Job, view: GateView, errand: Errand, destination: Destination) -> datetime | None:
        bench = self._bench
        job = await bench.append(job, decide_start(job, bench.engine_id))
        control = bench.control_of(job)
        journal = LandingJournal(bench, job)
        progress = bench.board.open(job.job_id)
        try:
            async with self._gates.over(bench, view, control):
                copied = await self._in_hand.do(
                    job.job_id, control, progress, lambda: copy_run(errand, journal, control, progress)
                )
            job = journal.job
            view = await bench.gate.look(job.run, bench.clock())
            if not view.is_open:
                return await self._hold_at_gate(job, refusal(view))
            await self._close_manifest(job, copied)
        except TransferStoppedError as stopped:
            return await self._stopped(journal.job, stopped.reason)
        except TransferError as error:
            return await bench.fail(journal.job, error, destination)
        except (CreationError, WalkError) as error:
            return await self._without_run(journal.job, error)
        finally:
            journal.close()
            bench.board.close(job.job_id)
        return None

    async def _amended(self, job: Job) -> Job | None:
        """Of an amendment: the job that it adds to."""
        return await self._bench.log.job(job.amends_job_id) if job.amends_job_id else None

    async def _since_amended(self, job: Job, located: LocatedRun, amended: Job | None) -> ChangesSince | None:
        """Of an amendment: what became of the files that the earlier job proved. TransferError."""
        if not job.amends_job_id:
            return None
        if amended is None or amended.files_blob is None:
            raise JobHistoryError(f"job {job.job_id} amends {job.amends_job_id}, which proved nothing")
        bench = self._bench
        blob, cleaned = amended.files_blob, lists_of_deletions(await bench.jobs_of_run(job.run))
        return await bench.threads.run(
            lambda: what_changed_since(
                located,
                read_copied(bench.blobs, blob),
                cleaned=[read_copied(bench.blobs, each) for each in cleaned],
            )
        )

    async def _close_manifest(self, job: Job, copied: Sequence[CopiedFile]) -> None:
        await self._bench.conclude(job, await self._bench.threads.run(lambda: self._copied(job, copied)))

    def _copied(self, job: Job, copied: Sequence[CopiedFile]) -> events.JobCopied:
        blobs, closed = self._bench.blobs, events.JobCopied(attempt=job.attempt)

        def manifest() -> Iterator[bytes]:
            for file in copied:
                if file.kind is EntryKind.FILE:
                    closed.file_count += 1
                    closed.byte_count += file.size
                    yield manifest_line(ManifestEntry(file.path, file.sha256))

        closed.manifest_blob = blobs.put_pieces_sync(manifest())
        closed.files_blob = blobs.put_pieces_sync(copied_lines(copied))
        return closed

    async def _without_run(self, job: Job, error: Exception) -> datetime | None:
        """The run can't be looked at: what kind of failure that is."""
        bench = self._bench
        match error:
            case EquipmentNotConfiguredError():
                return await bench.hold(job, WaitCondition.EQUIPMENT_NOT_CONFIGURED, error.message, None)
            case RunNotFoundError() if away := await bench.threads.run(
                lambda: bench.locator.why_away(job.equipment_id)
            ):
                return await bench.hold(job, WaitCondition.OPERATOR, away, bench.clock() + SOURCE_PAUSE)
            case LabferryError():
                failure = TransferError(FailureKind.LOCAL_FILE_VANISHED, error.message)
            case CreationError():
                failure = TransferError(FailureKind.CREATION_FILE, error.message)
            case _:
                failure = TransferError(FailureKind.LOCAL_FILE_UNREADABLE, str(error))
        return await bench.fail(job, failure)

    async def _stopped(self, job: Job, reason: StopReason) -> datetime | None:
        bench = self._bench
        match reason:
            case StopReason.GATE_CLOSED:
                detail = "an override ended while files were being copied; no further file was started"
                await bench.hold(job, WaitCondition.GATE, detail, bench.clock())
            case StopReason.PAUSED | StopReason.CANCELLED | StopReason.LEASE_LOST:
                # The operator's command stands in the log already; a job of another engine is its business.
                return None
            case _:
                await bench.conclude(job, events.JobRequeued(cause=reason.value))
        return None

    async def _hold_at_gate(self, job: Job, why: str, failure: Failure | None = None) -> datetime | None:
        return await self._bench.hold(job, WaitCondition.GATE, why, self._bench.clock() + GATE_PAUSE, failure)


def _verified_files_changed(refused: Sequence[ChangedFile]) -> Failure:
    """As AcceptChange asks for them."""
    named = "; ".join(
        f"{change.path.decode(errors='replace')} (proven as {change.old_sha256}, now {change.new_sha256 or 'missing'})"
        for change in refused[:_MOST_NAMED]
    )
    more = f"; and {len(refused) - _MOST_NAMED} more" if len(refused) > _MOST_NAMED else ""
    return failure_of_transfer(
        TransferError(
            FailureKind.DESTINATION_FILE_DIFFERS,
            f"verified_file_changed: {named}{more}; AcceptChange lets each be superseded",
            [change.path for change in refused],
            [DifferingFile(change.path, change.old_sha256, change.new_sha256) for change in refused],
        )
    )
