"""Files of a proven copy that a later job was allowed to supersede: that they are gone there is no rot (SPEC §4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import dropwhile

from services.sync_engine.jobs.acceptances import LastWord, last_words, unspent
from services.sync_engine.jobs.job import Job, JobState
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.transfer.path_order import InStep
from services.sync_engine.transfer.spilled_list import spilled
from services.sync_engine.transfer.transport import CopiedFile, EntryKind, FileEvidence, VerifyOutcome


async def without_superseded(
    bench: Workbench, job: Job, expected: Sequence[CopiedFile], outcome: VerifyOutcome
) -> tuple[Sequence[CopiedFile], VerifyOutcome]:
    """What a reading found, and what it was to find, without the files that a job which amends this one, and is not
    proven itself, may have taken away: an operator accepted that. One that was cancelled won't bring what it took them
    away for. To be asked after the reading."""
    wrong = {*outcome.missing, *outcome.differing}
    if not wrong or not await _is_being_amended(bench, job):
        return expected, outcome
    accepted = await unspent(bench.log, await bench.log.run(job.run), job.destination, job)
    last = {path: word for path, word in last_words(accepted).items() if path in wrong}
    return await bench.threads.run(lambda: _without(last, expected, outcome))


async def _is_being_amended(bench: Workbench, job: Job) -> bool:
    jobs = await bench.jobs_of_run(job.run)
    later = list(dropwhile(lambda each: each.job_id != job.job_id, jobs))[1:]
    return any(
        each.destination == job.destination and each.attempt and each.state is not JobState.CANCELLED for each in later
    )


def _without(
    last: Mapping[bytes, LastWord], expected: Sequence[CopiedFile], outcome: VerifyOutcome
) -> tuple[Sequence[CopiedFile], VerifyOutcome]:
    given_up = [f for f in expected if (word := last.get(f.path)) is not None and f.sha256 in word.old_sha256s]
    if not given_up:
        return expected, outcome
    paths = {file.path for file in given_up}
    read = InStep(outcome.evidence)
    files = [(file, read.at(file.path) is not None) for file in given_up if file.kind is EntryKind.FILE]
    note = f"{len(paths)} superseded by a later job, which is not verified"
    return spilled(CopiedFile, (file for file in expected if file.path not in paths)), replace(
        outcome,
        expected=outcome.expected - len(files),
        hashed=outcome.hashed - sum(was_read for _, was_read in files),
        missing=tuple(path for path in outcome.missing if path not in paths),
        differing=tuple(path for path in outcome.differing if path not in paths),
        evidence=spilled(FileEvidence, (each for each in outcome.evidence if each.path not in paths)),
        note="; ".join(filter(None, (outcome.note, note))),
    )
