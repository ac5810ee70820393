"""A rotted copy is repaired from the local files that still equal the manifest; what it held is kept as superseded."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass

from labferry.events.v1 import job_events_pb2 as events
from libs.service_kit.errors import LabferryError
from services.sync_engine.engine_log import BY_ITSELF, decided_anew, job_change
from services.sync_engine.jobs.file_list import encode_copied
from services.sync_engine.jobs.job import Job
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.runs.location import LocatedRun
from services.sync_engine.transfer.destination import Destination
from services.sync_engine.transfer.source_file import SourceFiles
from services.sync_engine.transfer.source_tree import scan_run
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import (
    CopiedFile,
    EntryKind,
    Progress,
    SourceEntry,
    TransferError,
    VerifyOutcome,
)


@dataclass(frozen=True, slots=True)
class _Sound:
    """Local files that hold what the manifest says, and the folders that they lie in."""

    files: Sequence[SourceEntry]
    folders: Sequence[SourceEntry]


class Repair:
    """Repairs one copy after a pass that found files missing or differing."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    async def mend(
        self,
        job: Job,
        place: Destination,
        expected: Sequence[CopiedFile],
        outcome: VerifyOutcome,
        control: TransferControl,
        progress: Progress,
    ) -> int:
        """How many files were put back; those whose source is gone or changed stay a finding. TransferStoppedError."""
        bench = self._bench
        wrong = {*outcome.missing, *outcome.differing}
        try:
            located = await bench.locate(job.run)
            sound = await bench.threads.run(lambda: _sound(located, [f for f in expected if f.path in wrong]))
            if not sound.files:
                return 0
            loop = asyncio.get_running_loop()
            await bench.threads.run(
                lambda: self._put_back(job, place, located, sound, outcome, control, progress, loop)
            )
        except (LabferryError, TransferError, OSError) as error:
            bench.logger.warning("copy_not_repaired", job=job.job_id, destination=place.name, problem=str(error))
            return 0
        return len(sound.files)

    def _put_back(
        self,
        job: Job,
        place: Destination,
        located: LocatedRun,
        sound: _Sound,
        outcome: VerifyOutcome,
        control: TransferControl,
        progress: Progress,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        target, attempt = located.path.below_equipment, job.attempt + 1
        here = {entry.path for entry in sound.files}
        aside = [path for path in outcome.differing if path in here]
        place.transport.set_aside(target, aside, job_id=job.job_id, attempt=attempt, control=control)
        place.transport.copy(
            located.folder,
            sorted([*sound.folders, *sound.files], key=lambda entry: entry.path),
            target=target,
            job_id=job.job_id,
            attempt=attempt,
            landed=(),
            before_landing=lambda batch: asyncio.run_coroutine_threadsafe(self._record(job, batch), loop).result(),
            control=control,
            progress=progress,
        )
        place.transport.sweep(job.job_id, keep_attempt=None, control=control)

    async def _record(self, job: Job, batch: Sequence[CopiedFile]) -> None:
        bench = self._bench
        event = events.JobCopyRepaired(
            batch_blob=await bench.blobs.put(encode_copied(batch)),
            file_count=len(batch),
            byte_count=sum(file.size for file in batch),
        )

        async def attempt() -> None:
            present = await bench.log.job(job.job_id) or job
            await bench.log.append(BY_ITSELF, job_change(present, event), fence=bench.owned.fence(job.job_id))

        await decided_anew(attempt)


def _sound(located: LocatedRun, wanted: Sequence[CopiedFile]) -> _Sound:
    source = SourceFiles(os.fsencode(located.folder))
    entries = scan_run(located.folder, of_project=located.path.is_project)
    sought = {file.path: file for file in wanted}
    files = []
    for entry in entries:
        file = sought.get(entry.path)
        if file is not None and entry.kind is file.kind and source.sha256(entry) == file.sha256:
            files.append(entry)
    above = {path for entry in files for path in _folders_of(entry.path)}
    folders = [e for e in entries if e.kind is EntryKind.DIRECTORY and e.path in above]
    return _Sound(files, folders)


def _folders_of(path: bytes) -> Sequence[bytes]:
    parts = path.split(b"/")[:-1]
    return [b"/".join(parts[: number + 1]) for number in range(len(parts))]
