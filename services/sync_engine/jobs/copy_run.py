"""The blocking part of an attempt: everything of a run is brought to a destination, until two scans of it agree."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import groupby
from pathlib import PurePosixPath

from services.sync_engine.jobs.landing_journal import LandingJournal
from services.sync_engine.runs.location import LocatedRun
from services.sync_engine.runs.run import AcceptedChange
from services.sync_engine.transfer.path_order import InStep, by_path
from services.sync_engine.transfer.source_file import SourceFiles
from services.sync_engine.transfer.source_tree import difference, scan_run
from services.sync_engine.transfer.spilled_list import spilled
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import (
    CopiedFile,
    DifferingFile,
    EntryKind,
    FailureKind,
    Progress,
    ProgressPhase,
    SourceEntry,
    TransferError,
    Transport,
)

_ROUNDS = 5
"""A run that still gets new files after so many rounds of copying isn't settled."""


@dataclass(frozen=True, slots=True)
class Errand:
    """What one attempt brings where. `kept` are files that an earlier job proved there and that are the same still:
    they are listed, sorted by path, and neither sent nor touched. `accepted` are the changes that operators accepted
    for this place."""

    located: LocatedRun
    transport: Transport
    kept: Sequence[CopiedFile]
    accepted: Sequence[AcceptedChange]

    @property
    def target(self) -> PurePosixPath:
        return self.located.path.below_equipment


def copy_run(
    errand: Errand, journal: LandingJournal, control: TransferControl, progress: Progress
) -> Sequence[CopiedFile]:
    """Every file that the destination then holds, sorted by path. Runs in a thread. TransferError,
    TransferStoppedError, and what the journal raises."""
    job, located, transport = journal.job, errand.located, errand.transport
    transport.sweep(job.job_id, keep_attempt=job.attempt, control=control)
    if job.mismatches:
        _set_aside_what_rotted(errand, journal, control, progress)
    progress.begin(ProgressPhase.PLANNING, 0, 0)
    entries = scan_run(located.folder, of_project=located.path.is_project)
    if errand.accepted:
        _supersede(errand, journal, entries, control)
    for _ in range(_ROUNDS):
        copied = transport.copy(
            located.folder,
            _besides(entries, errand.kept),
            target=errand.target,
            job_id=job.job_id,
            attempt=job.attempt,
            landed=journal.landed(),
            before_landing=journal.record,
            control=control,
            progress=progress,
        )
        now = scan_run(located.folder, of_project=located.path.is_project)
        found = difference(entries, now)
        if found.removed:
            raise TransferError(
                FailureKind.LOCAL_FILE_VANISHED, "files vanished from the run while it was copied", found.removed
            )
        if found.changed:
            raise TransferError(FailureKind.SOURCE_CHANGED, "files changed while the run was copied", found.changed)
        if not found.added:
            transport.sweep(job.job_id, keep_attempt=None, control=control)
            return spilled(CopiedFile, merge(copied, errand.kept, key=by_path)) if errand.kept else copied
        entries = now
    raise TransferError(FailureKind.SOURCE_CHANGED, "files are still being added to the run", found.added)


def _besides(entries: Sequence[SourceEntry], kept: Sequence[CopiedFile]) -> Sequence[SourceEntry]:
    if not kept:
        return entries
    known = InStep(kept)
    return spilled(SourceEntry, (entry for entry in entries if known.at(entry.path) is None))


def _supersede(
    errand: Errand, journal: LandingJournal, entries: Sequence[SourceEntry], control: TransferControl
) -> None:
    """Moves copies beside the data whose replacement was accepted: only those that hold exactly the old content, and
    only while the run holds exactly the new one."""
    source = SourceFiles(os.fsencode(errand.located.folder))
    # The last word on a file counts: what it may be is what was accepted last.
    last = {a.path: a for a in errand.accepted}
    for file in errand.kept:
        last.pop(file.path, None)
    here = {e.path: e for e in entries if e.path in last and e.kind is not EntryKind.DIRECTORY}
    there = errand.transport.digests(errand.target, sorted(last), control=control)
    refused: list[DifferingFile] = []
    superseded: list[bytes] = []
    for path, change in sorted(last.items()):
        entry = here.get(path)
        now = source.sha256(entry, control.look) if entry is not None else ""
        if now != change.new_sha256:
            refused.append(DifferingFile(path, there.get(path, change.old_sha256), now))
        elif there.get(path) == change.old_sha256 != now:
            superseded.append(path)
    if refused:
        raise TransferError(
            FailureKind.DESTINATION_FILE_DIFFERS,
            "the run no longer holds what was accepted in the place of what the destination held",
            [f.path for f in refused],
            refused,
        )
    _set_aside(errand, journal, superseded, control)
    journal.expect({path: change.new_sha256 for path, change in last.items()})


def _set_aside_what_rotted(
    errand: Errand, journal: LandingJournal, control: TransferControl, progress: Progress
) -> None:
    """Moves this job's own files that no longer hold what was sent out of the way, so that they can be sent again."""
    last = spilled(CopiedFile, (deque(files, 1)[0] for _, files in groupby(journal.landed(), by_path)))
    outcome = errand.transport.verify(errand.target, last, control=control, progress=progress)
    _set_aside(errand, journal, outcome.differing, control)
    # Was it the destination? Not if the source is another by now: then the copy was right, and the run isn't settled.
    located = errand.located
    differing = frozenset(outcome.differing)
    sent = {file.path: file.sha256 for file in last if file.path in differing}
    source = SourceFiles(os.fsencode(located.folder))
    changed = [
        entry.path
        for entry in scan_run(located.folder, of_project=located.path.is_project)
        if entry.path in differing and source.sha256(entry, control.look) != sent[entry.path]
    ]
    if changed:
        raise TransferError(FailureKind.SOURCE_CHANGED, "files changed here after they were copied", changed)


def _set_aside(errand: Errand, journal: LandingJournal, paths: Sequence[bytes], control: TransferControl) -> None:
    job = journal.job
    errand.transport.set_aside(errand.target, paths, job_id=job.job_id, attempt=job.attempt, control=control)
