"""Which proven copy a run's next job to a destination adds to (SPEC §4 enqueue of a verified run). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.sync_engine.jobs.job import PROVEN_STATES, Job, JobState
from services.sync_engine.jobs.read_model import last_proven, latest_by_destination


def lists_of_deletions(jobs: Sequence[Job]) -> Sequence[str]:
    """Blobs that list what cleanups of the run deleted here, or may have. Each is of the job by whose proof it was
    done: one that amends it has deleted nothing itself."""
    return sorted({job.files_blob for job in jobs if job.deletion_begun and job.files_blob is not None})


def proven_bases(jobs: Sequence[Job]) -> Mapping[str, Job]:
    """By destination: the job whose proven files count, of one run's jobs in the order they were queued.

    A cancelled amendment takes nothing back: what an earlier job proved there stays proven.
    """
    proven = last_proven(jobs)
    return {
        name: proven[name]
        for name, last in latest_by_destination(jobs).items()
        if name in proven and (last.state in PROVEN_STATES or last.state is JobState.CANCELLED)
    }
