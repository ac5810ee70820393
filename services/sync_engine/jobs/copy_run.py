"""The blocking part of an attempt: everything of a run is brought to a destination, until two scans of it agree."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from heapq import merge, nsmallest
from itertools import groupby
from operator import attrgetter
from pathlib import PurePosixPath

from services.sync_engine.jobs.acceptances import last_words
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
_WITNESSES = 3


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
    kept = errand.kept
    if job.mismatches or job.differing_blob:
        kept = _without(kept, _set_aside_what_rotted(errand, journal, control, progress))
    kept = _without(kept, _landed_anew(kept, journal))
    progress.begin(ProgressPhase.PLANNING, 0, 0)
    entries = scan_run(located.folder, of_project=located.path.is_project)
    changes = _accepted(errand, journal, entries, control) if errand.accepted else _Changes({}, {})
    _clear(errand, journal, changes.removed, dict.fromkeys(_in_the_way(entries, changes.removed), ""), control)

    def before_landing(batch: Sequence[CopiedFile]) -> None:
        journal.record(batch)
        whole = {file.path: file.sha256 for file in batch if file.path in changes.replaced}
        _clear(errand, journal, changes.replaced, whole, control, replaced=True)

    for _ in range(_ROUNDS):
        copied = transport.copy(
            located.folder,
            _besides(entries, kept),
            target=errand.target,
            job_id=job.job_id,
            attempt=job.attempt,
            landed=journal.landed(),
            before_landing=before_landing,
            cleared=changes.replaced.keys(),
            kept=kept,
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
            _clear(errand, journal, changes.removed, dict.fromkeys(changes.removed, ""), control)
            transport.sweep(job.job_id, keep_attempt=None, control=control)
            return spilled(CopiedFile, merge(copied, kept, key=by_path)) if kept else copied
        entries = now
    raise TransferError(FailureKind.SOURCE_CHANGED, "files are still being added to the run", found.added)


def _besides(entries: Sequence[SourceEntry], kept: Sequence[CopiedFile]) -> Sequence[SourceEntry]:
    if not kept:
        return entries
    known = InStep(kept)
    return spilled(SourceEntry, (entry for entry in entries if known.at(entry.path) is None))


def _landed_anew(kept: Sequence[CopiedFile], journal: LandingJournal) -> AbstractSet[bytes]:
    """Files in whose place this job put something itself: whole ones in that of rotten ones, or a change that is taken
    back here by now. What lies there is the job's own, and looked at and replaced as the rest of that."""
    if not kept or not journal.job.landing_blobs:
        return frozenset()
    own = InStep(journal.landed())
    return {file.path for file in kept if own.at(file.path) is not None}


def _without(kept: Sequence[CopiedFile], paths: AbstractSet[bytes]) -> Sequence[CopiedFile]:
    return spilled(CopiedFile, (file for file in kept if file.path not in paths)) if paths else kept


@dataclass(frozen=True, slots=True)
class _Changes:
    """Accepted ones that are to be carried out: files to be replaced, and files that are gone here, each with the
    SHA-256 of what the destination holds of it."""

    replaced: dict[bytes, str]
    removed: dict[bytes, str]


def _accepted(
    errand: Errand, journal: LandingJournal, entries: Sequence[SourceEntry], control: TransferControl
) -> _Changes:
    """Only files of which the destination holds exactly the old content, and the run exactly the new one. Where nothing
    is there any more, or what the run holds, nothing is to be accepted."""
    source = SourceFiles(os.fsencode(errand.located.folder))
    words = last_words(errand.accepted)
    kept = {file.path for file in errand.kept if file.path in words}
    last = {path: word for path, word in words.items() if path not in kept}
    here = {e.path: e for e in entries if e.path in last and e.kind is not EntryKind.DIRECTORY}
    there = errand.transport.digests(errand.target, sorted(last), control=control)
    refused: list[DifferingFile] = []
    changes: dict[bytes, str] = {}
    removed: dict[bytes, str] = {}
    expected: dict[bytes, str] = {}
    for path, word in sorted(last.items()):
        entry = here.get(path)
        now = source.sha256(entry, control.look) if entry is not None else ""
        if now == word.new_sha256:
            expected[path] = now
            if there.get(path) in word.old_sha256s:
                (changes if now else removed)[path] = there[path]
        elif path in there and there[path] != now:
            refused.append(DifferingFile(path, there[path], now))
    if refused:
        raise TransferError(
            FailureKind.DESTINATION_FILE_DIFFERS,
            "the run no longer holds what was accepted in the place of what the destination held",
            [f.path for f in refused],
            refused,
        )
    journal.expect(expected)
    return _Changes(changes, removed)


def _in_the_way(entries: Sequence[SourceEntry], removed: Mapping[bytes, str]) -> Sequence[bytes]:
    """Files in whose place the run has a folder now."""
    if not removed:
        return ()
    return [entry.path for entry in entries if entry.kind is EntryKind.DIRECTORY and entry.path in removed]


def _clear(
    errand: Errand,
    journal: LandingJournal,
    accepted: dict[bytes, str],
    now: Mapping[bytes, str],
    control: TransferControl,
    *,
    replaced: bool = False,
) -> None:
    """Moves some of the `accepted` copies beside the data; `now` has what the run holds of them. Those that are
    replaced go when their replacements lie whole there, and not before: what was proven is never missed for what can't
    come. The destination may hold another content by then than the accepted one."""
    if not now:
        return
    there = errand.transport.digests(errand.target, sorted(now), control=control)
    differing = [DifferingFile(path, sha256, now[path]) for path, sha256 in there.items() if sha256 != accepted[path]]
    if differing:
        raise TransferError(
            FailureKind.DESTINATION_FILE_DIFFERS,
            "the destination no longer holds what was accepted to be replaced",
            [file.path for file in differing],
            differing,
        )
    _set_aside(errand, journal, sorted(there), control, replaced=replaced)
    for path in now:
        del accepted[path]


def _set_aside_what_rotted(
    errand: Errand, journal: LandingJournal, control: TransferControl, progress: Progress
) -> AbstractSet[bytes]:
    """Moves files that don't hold what was sent out of the way, so that they can be sent again: this job's own, and
    those that it keeps of an earlier one. Which those may be its verification told; that they still are is looked at,
    since what was lost may have been put back. Nothing that was proven is moved unless the run here can replace it.
    The paths of kept ones that are to be sent anew: they are lost or wrong there, and whole here."""
    job, located = journal.job, errand.located
    own = spilled(CopiedFile, (deque(files, 1)[0] for _, files in groupby(journal.landed(), by_path)))
    landed = InStep(own)
    older = spilled(CopiedFile, (file for file in errand.kept if landed.at(file.path) is None))
    ours = spilled(CopiedFile, merge(own, older, key=by_path))
    outcome = errand.transport.verify(
        errand.target,
        _suspects(ours, {file.path for file in journal.found_wrong()}),
        control=control,
        progress=progress,
        max_stream_bytes=job.max_stream_bytes,
        whole=ours,
    )
    differing = {*outcome.differing}
    wrong = differing.union(outcome.missing)
    sent = {file.path: file.sha256 for file in ours if file.path in wrong}
    kept = {file.path for file in older if file.path in wrong}
    source = SourceFiles(os.fsencode(located.folder))
    here = {
        entry.path: source.sha256(entry, control.look)
        for entry in scan_run(located.folder, of_project=located.path.is_project)
        if entry.path in differing or entry.path in kept
    }
    whole = {path for path, sha256 in here.items() if sha256 == sent[path]}
    _set_aside(errand, journal, sorted(differing & whole), control, replaced=True)
    _set_aside(errand, journal, sorted(path for path in differing - whole if path not in kept), control)
    # Was it the destination? Not if the source is another by now: then the copy was right, and the run isn't settled.
    if changed := sorted(here.keys() - whole):
        raise TransferError(FailureKind.SOURCE_CHANGED, "files changed here after they were copied", changed)
    return kept & whole


def _suspects(ours: Sequence[CopiedFile], known: AbstractSet[bytes]) -> Sequence[CopiedFile]:
    """The files to look at: those that are known, if any are. A few small ones besides, by which a file that the
    storage can't read is told from a storage that reads nothing."""
    if not known:
        return ours
    others = (file for file in ours if file.kind is EntryKind.FILE and file.size and file.path not in known)
    looked_at = known | {file.path for file in nsmallest(_WITNESSES, others, key=attrgetter("size"))}
    return spilled(CopiedFile, (file for file in ours if file.path in looked_at))


def _set_aside(
    errand: Errand, journal: LandingJournal, paths: Sequence[bytes], control: TransferControl, *, replaced: bool = False
) -> Sequence[bytes]:
    job = journal.job
    return errand.transport.set_aside(
        errand.target, paths, job_id=job.job_id, attempt=job.attempt, control=control, replaced=replaced
    )
