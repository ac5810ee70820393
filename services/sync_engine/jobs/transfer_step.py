"""One attempt of a job: the gate, the copy, and the closing of the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from operator import attrgetter

from labferry.events.v1 import job_events_pb2 as events
from libs.run_tree.creation_errors import CreationError
from libs.run_tree.manifest import ManifestEntry, format_manifest
from libs.service_kit.errors import LabferryError
from services.sync_engine.engine_log import BY_ITSELF
from services.sync_engine.errors import EquipmentNotConfiguredError
from services.sync_engine.jobs.file_list import decode_copied, encode_copied
from services.sync_engine.jobs.gate_watch import GateWatch
from services.sync_engine.jobs.job import Job, WaitCondition, decide_start
from services.sync_engine.jobs.landing_journal import LandingJournal
from services.sync_engine.jobs.retry import GATE_PAUSE
from services.sync_engine.jobs.workbench import Destination, Workbench
from services.sync_engine.runs.location import LocatedRun
from services.sync_engine.transfer.source_tree import difference, scan_run
from services.sync_engine.transfer.transport import (
    CopiedFile,
    EntryKind,
    FailureKind,
    Progress,
    ProgressPhase,
    StopReason,
    TransferControl,
    TransferError,
    TransferStoppedError,
)
from services.sync_engine.validation.presync_gate import GateView, refusal
from services.sync_engine.validation.walk import WalkError

_ROUNDS = 5
"""A run that still gets new files after so many rounds of copying isn't settled."""


class TransferStep:
    """Takes a queued job to `awaiting_verify`, or records why it can't be taken there now."""

    def __init__(self, bench: Workbench, gates: GateWatch, controls: dict[str, TransferControl]) -> None:
        self._bench = bench
        self._gates = gates
        self._controls = controls

    async def take(self, job: Job) -> datetime | None:
        """Returns when to look again although no event will say so; None otherwise."""
        bench = self._bench
        destination = bench.destination(job)
        if destination is None:
            return await bench.hold_without_destination(job)
        try:
            located = await bench.locate(job.run)
            view = await bench.gate.look(located, bench.clock())
        except EquipmentNotConfiguredError as error:
            return await bench.hold(job, WaitCondition.EQUIPMENT_NOT_CONFIGURED, error.message, None)
        except LabferryError as error:
            await bench.fail(job, TransferError(FailureKind.LOCAL_FILE_VANISHED, error.message))
            return None
        except CreationError as error:
            await bench.fail(job, TransferError(FailureKind.CREATION_FILE, error.message))
            return None
        except WalkError as error:
            await bench.fail(job, TransferError(FailureKind.LOCAL_FILE_UNREADABLE, error.message))
            return None
        if not view.is_open:
            return await self._hold_at_gate(job, view)
        try:
            await bench.in_thread(job.equipment_id, destination.transport.check)
        except TransferError as error:
            await bench.fail(job, error, destination)
            return None
        return await self._attempt(job, located, view, destination)

    async def _attempt(
        self, job: Job, located: LocatedRun, view: GateView, destination: Destination
    ) -> datetime | None:
        bench = self._bench
        earlier = [f for digest in job.landing_blobs for f in decode_copied(await bench.blobs.read(digest))]
        job = await bench.log.append_to_job(BY_ITSELF, job, decide_start(job, bench.engine_id))
        control = TransferControl()
        journal = LandingJournal(bench, job, earlier)
        progress = bench.board.open(job.job_id)
        self._controls[job.job_id] = control
        try:
            async with self._gates.over(bench, view, control):
                copied = await bench.in_thread(
                    job.equipment_id, lambda: _copy(located, destination, journal, control, progress)
                )
            job = journal.job
            view = await bench.gate.look(located, bench.clock())
            if not view.is_open:
                return await self._hold_at_gate(job, view)
            await self._close_manifest(job, copied)
        except TransferStoppedError as stopped:
            await self._stopped(journal.job, stopped.reason)
        except TransferError as error:
            await bench.fail(journal.job, error, destination)
        except CreationError as error:
            await bench.fail(journal.job, TransferError(FailureKind.CREATION_FILE, error.message))
        except WalkError as error:
            await bench.fail(journal.job, TransferError(FailureKind.LOCAL_FILE_UNREADABLE, error.message))
        finally:
            del self._controls[job.job_id]
            bench.board.close(job.job_id)
        return None

    async def _close_manifest(self, job: Job, copied: Sequence[CopiedFile]) -> None:
        bench = self._bench
        files = [f for f in copied if f.kind is EntryKind.FILE]
        manifest = format_manifest(ManifestEntry(f.path, f.sha256) for f in files)
        await bench.conclude(
            job,
            events.JobCopied(
                attempt=job.attempt,
                manifest_blob=await bench.blobs.put(manifest),
                files_blob=await bench.blobs.put(encode_copied(copied)),
                file_count=len(files),
                byte_count=sum(f.size for f in files),
            ),
        )

    async def _stopped(self, job: Job, reason: StopReason) -> None:
        bench = self._bench
        if reason is StopReason.GATE_CLOSED:
            detail = "an override ended while files were being copied; no further file was started"
            await bench.hold(job, WaitCondition.GATE, detail, bench.clock())
        else:
            await bench.conclude(job, events.JobRequeued(cause=reason.value))

    async def _hold_at_gate(self, job: Job, view: GateView) -> datetime | None:
        again = self._bench.clock() + GATE_PAUSE
        return await self._bench.hold(job, WaitCondition.GATE, refusal(view), again)


def _copy(
    located: LocatedRun,
    destination: Destination,
    journal: LandingJournal,
    control: TransferControl,
    progress: Progress,
) -> Sequence[CopiedFile]:
    """Copies until two scans of the run agree, so that the manifest lists what the run holds. Runs in a thread."""
    job, transport = journal.job, destination.transport
    transport.sweep(job.job_id, keep_attempt=job.attempt)
    if job.mismatches:
        _set_aside_what_rotted(located, destination, journal, control, progress)
    progress.begin(ProgressPhase.PLANNING, 0, 0)
    entries = scan_run(located.folder)
    for _ in range(_ROUNDS):
        copied = transport.copy(
            located.folder,
            entries,
            target=located.path.below_equipment,
            job_id=job.job_id,
            attempt=job.attempt,
            landed=journal.landed(),
            before_landing=journal.record,
            control=control,
            progress=progress,
        )
        now = scan_run(located.folder)
        found = difference(entries, now)
        if found.removed:
            raise TransferError(
                FailureKind.LOCAL_FILE_VANISHED, "files vanished from the run while it was copied", found.removed
            )
        if found.changed:
            raise TransferError(FailureKind.SOURCE_CHANGED, "files changed while the run was copied", found.changed)
        if not found.added:
            transport.sweep(job.job_id, keep_attempt=None)
            return copied
        entries = now
    raise TransferError(FailureKind.SOURCE_CHANGED, "files are still being added to the run", found.added)


def _set_aside_what_rotted(
    located: LocatedRun,
    destination: Destination,
    journal: LandingJournal,
    control: TransferControl,
    progress: Progress,
) -> None:
    """Moves this job's own files that no longer hold what was sent out of the way, so that they can be sent again."""
    last = {path: files[-1] for path, files in journal.landed().items()}
    outcome = destination.transport.verify(
        located.path.below_equipment, sorted(last.values(), key=attrgetter("path")), control=control, progress=progress
    )
    destination.transport.set_aside(
        located.path.below_equipment, outcome.differing, job_id=journal.job.job_id, attempt=journal.job.attempt
    )
