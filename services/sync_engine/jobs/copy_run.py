"""The blocking part of an attempt: everything of a run is brought to a destination, until two scans of it agree."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import PurePosixPath

from services.sync_engine.jobs.landing_journal import LandingJournal
from services.sync_engine.runs.location import LocatedRun
from services.sync_engine.runs.run import AcceptedChange
from services.sync_engine.transfer.source_file import SourceFiles
from services.sync_engine.transfer.source_tree import difference, scan_run
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
    they are listed, and neither sent nor touched. `accepted` are the changes that operators accepted for this place."""

    located: LocatedRun
    transport: Transport
    kept: Mapping[bytes, CopiedFile]
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
    transport.sweep(job.job_id, keep_attempt=job.attempt)
    if job.mismatches:
        _set_aside_what_rotted(errand, journal, control, progress)
    progress.begin(ProgressPhase.PLANNING, 0, 0)
    entries = scan_run(located.folder, of_project=located.path.is_project)
    if errand.accepted:
        _supersede(errand, journal, entries)
    for _ in range(_ROUNDS):
        copied = transport.copy(
            located.folder,
            [e for e in entries if e.path not in errand.kept],
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
            transport.sweep(job.job_id, keep_attempt=None)
            return sorted([*copied, *errand.kept.values()], key=attrgetter("path"))
        entries = now
    raise TransferError(FailureKind.SOURCE_CHANGED, "files are still being added to the run", found.added)


def _supersede(errand: Errand, journal: LandingJournal, entries: Sequence[SourceEntry]) -> None:
    """Moves copies beside the data whose replacement was accepted: only those that hold exactly the old content, and
    only while the run holds exactly the new one."""
    here = {e.path: e for e in entries if e.kind is not EntryKind.DIRECTORY}
    source = SourceFiles(os.fsencode(errand.located.folder))
    # The last word on a file counts: what it may be is what was accepted last.
    last = {a.path: a for a in errand.accepted if a.path not in errand.kept}
    there = errand.transport.digests(errand.target, sorted(last))
    refused: list[DifferingFile] = []
    superseded: list[bytes] = []
    for path, change in sorted(last.items()):
        entry = here.get(path)
        now = source.sha256(entry) if entry is not None else ""
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
    errand.transport.set_aside(errand.target, superseded, job_id=journal.job.job_id, attempt=journal.job.attempt)
    journal.expect({path: change.new_sha256 for path, change in last.items()})


def _set_aside_what_rotted(
    errand: Errand, journal: LandingJournal, control: TransferControl, progress: Progress
) -> None:
    """Moves this job's own files that no longer hold what was sent out of the way, so that they can be sent again."""
    last = {path: files[-1] for path, files in journal.landed().items()}
    outcome = errand.transport.verify(
        errand.target, sorted(last.values(), key=attrgetter("path")), control=control, progress=progress
    )
    errand.transport.set_aside(errand.target, outcome.differing, job_id=journal.job.job_id, attempt=journal.job.attempt)
    # Was it the destination? Not if the source is another by now: then the copy was right, and the run isn't settled.
    located = errand.located
    here = {e.path: e for e in scan_run(located.folder, of_project=located.path.is_project)}
    source = SourceFiles(os.fsencode(located.folder))
    changed = [p for p in outcome.differing if p in here and source.sha256(here[p]) != last[p].sha256]
    if changed:
        raise TransferError(FailureKind.SOURCE_CHANGED, "files changed here after they were copied", changed)
