"""A rotted copy is repaired from the local files that still equal the manifest; what it held is kept as superseded."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from libs.service_kit.errors import LabferryError
from services.sync_engine.audits.putting_back import NotPutBack, PuttingBack, behind_others, folders_of
from services.sync_engine.audits.repair_journal import RepairJournal
from services.sync_engine.jobs.job import Job
from services.sync_engine.jobs.progress import JobProgressMeter
from services.sync_engine.jobs.work_in_hand import WorkInHand
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.runs.location import LocatedRun
from services.sync_engine.transfer.destination import Destination
from services.sync_engine.transfer.room import refuse_if_full
from services.sync_engine.transfer.source_file import SourceFiles
from services.sync_engine.transfer.source_tree import scan_run
from services.sync_engine.transfer.system_error import shown
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import (
    CopiedFile,
    EntryKind,
    SourceEntry,
    TransferError,
    VerifyOutcome,
)

_MOST_TOLD = 200


@dataclass(frozen=True, slots=True)
class Rot:
    """What a reading found wrong of a copy that is to hold `expected`. `given_up` are paths among it that are not put
    back; of a destination under suspicion (`suspected`) nothing is."""

    expected: Sequence[CopiedFile]
    outcome: VerifyOutcome
    given_up: Sequence[bytes]
    suspected: bool


@dataclass(frozen=True, slots=True)
class _Sound:
    """Local files that hold what the manifest says, and the folders that they lie in."""

    files: Sequence[SourceEntry]
    folders: Sequence[SourceEntry]


class Repair:
    """Repairs one copy after a pass that found files missing or differing."""

    def __init__(self, bench: Workbench, in_hand: WorkInHand) -> None:
        self._bench = bench
        self._in_hand = in_hand

    async def mend(self, job: Job, place: Destination, rot: Rot, control: TransferControl) -> None:
        """Files whose source is gone or changed stay as they are, and a finding. TransferStoppedError: the engine asked
        for the end, and what was not put back is still wrong."""
        bench, meter = self._bench, JobProgressMeter(lambda: None)
        journal = RepairJournal(bench, job)
        refused: list[NotPutBack] = []
        problem = ""
        try:
            located = await bench.locate(job.run)
            sourceless = await self._in_hand.do(
                f"repair {job.job_id}",
                control,
                meter,
                lambda: _put_back(job, place, located, rot, journal, refused, control, meter),
            )
            problem = _words(refused, sourceless)
        except (LabferryError, TransferError, OSError) as error:
            bench.logger.warning("copy_not_repaired", job=job.job_id, destination=place.name, problem=str(error))
            problem = f"not put back: {error}"
        finally:
            journal.close()
            _tell(bench, job, place, tuple(refused))
        await journal.ended(problem)


def _words(refused: Sequence[NotPutBack], sourceless: int) -> str:
    """What was not put back although the rest was; empty: all that could be meant was."""
    said = []
    if refused:
        more = f", and {len(refused) - 1} more" if len(refused) > 1 else ""
        said.append(f"not put back: {shown(refused[0].path)}: {refused[0].problem}{more}")
    if sourceless:
        said.append(f"{sourceless} of these files can't be put back: the run here doesn't hold what was proven")
    return "; ".join(said)


def _tell(bench: Workbench, job: Job, place: Destination, refused: Sequence[NotPutBack]) -> None:
    for one in refused[:_MOST_TOLD]:
        bench.logger.warning(
            "copy_not_repaired", job=job.job_id, destination=place.name, path=shown(one.path), problem=one.problem
        )
    if len(refused) > _MOST_TOLD:
        problem = f"nor are {len(refused) - _MOST_TOLD} others"
        bench.logger.warning("copy_not_repaired", job=job.job_id, destination=place.name, problem=problem)


def _put_back(
    job: Job,
    place: Destination,
    located: LocatedRun,
    rot: Rot,
    journal: RepairJournal,
    refused: list[NotPutBack],
    control: TransferControl,
    meter: JobProgressMeter,
) -> int:
    """How many files have no source here."""
    transport, target, attempt = place.transport, located.path.below_equipment, job.attempt + 1
    given_up, differing = frozenset(rot.given_up), frozenset(rot.outcome.differing)
    wrong = differing.union(rot.outcome.missing)
    sound = _sound(located, [file for file in rot.expected if file.path in wrong], control)
    # What another engine, or a repair that was cut off, left undone is undone before anything is touched.
    transport.sweep(job.job_id, keep_attempt=None, control=control)
    behind = behind_others(sound.files, rot.outcome.unexpected)
    refused += behind.blocked

    def set_aside(files: Sequence[SourceEntry]) -> None:
        # What nobody could send again stays where it is, wrong as it may be.
        aside = [file.path for file in files if file.path in differing]
        replaced = given_up.isdisjoint(aside)
        transport.set_aside(target, aside, job_id=job.job_id, attempt=attempt, control=control, replaced=replaced)

    def send(files: Sequence[SourceEntry]) -> None:
        above = {folder for file in files for folder in folders_of(file.path)}
        folders = [folder for folder in sound.folders if folder.path in above]
        journal.begin()
        transport.copy(
            located.folder,
            sorted([*folders, *files], key=lambda entry: entry.path),
            target=target,
            job_id=job.job_id,
            attempt=attempt,
            landed=(),
            before_landing=journal.announce,
            control=control,
            progress=meter,
        )
        journal.landed()

    def work(send: Callable[[Sequence[SourceEntry]], None]) -> PuttingBack:
        return PuttingBack(set_aside, send, transport.check, control, refused)

    work(lambda files: None).put_back([file for file in behind.free if file.path in given_up])
    again = [file for file in behind.free if file.path not in given_up]
    sourceless = len(wrong) - len(sound.files)
    if rot.suspected or not again:
        return sourceless
    # Before anything is moved that it would have no room to send anew.
    refuse_if_full(transport.free_bytes(), sum(file.size for file in again))
    work(send).put_back(again)
    transport.sweep(job.job_id, keep_attempt=None, control=control)
    return sourceless


def _sound(located: LocatedRun, wanted: Sequence[CopiedFile], control: TransferControl) -> _Sound:
    source = SourceFiles(os.fsencode(located.folder))
    entries = scan_run(located.folder, of_project=located.path.is_project)
    sought = {file.path: file for file in wanted}
    files = []
    for entry in entries:
        control.look()
        file = sought.get(entry.path)
        if file is not None and entry.kind is file.kind and source.sha256(entry, control.look) == file.sha256:
            files.append(entry)
    above = {path for entry in files for path in folders_of(entry.path)}
    folders = [e for e in entries if e.kind is EntryKind.DIRECTORY and e.path in above]
    return _Sound(files, folders)
