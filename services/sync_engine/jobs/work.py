"""What the scheduler knows of a job: where it belongs, its turn, and how long its own record holds it back."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from services.sync_engine.jobs.job import ENDED_STATES, PROVEN_STATES, UNPROVEN_STATES, JobState
from services.sync_engine.jobs.read_model import PlacedJob
from services.sync_engine.jobs.retry import remaining
from services.sync_engine.jobs.seals_due import jobs_to_seal


@dataclass(frozen=True, slots=True)
class Work:
    """`place` orders jobs of the same priority; `pause` is the seconds that the job's record holds it back; `over`: it
    needs no step unless something happens to it."""

    job_id: str
    run: str
    equipment_id: str
    destination: str
    priority: int
    place: int
    revision: int
    pause: float = 0.0
    over: bool = False


def work_of(placed: PlacedJob, now: datetime) -> Work:
    """`placed` as `jobs_as_work` or `jobs_to_seal` tells of it."""
    job = placed.job
    return Work(
        job_id=job.job_id,
        run=job.run,
        equipment_id=sys.intern(job.equipment_id),
        destination=sys.intern(job.destination),
        priority=job.priority,
        place=placed.enqueue_position,
        revision=job.revision,
        pause=remaining(job, now),
        over=_is_over(placed),
    )


def _is_over(placed: PlacedJob) -> bool:
    job = placed.job
    if job.state is JobState.CANCELLED:
        return job.swept
    if job.state in PROVEN_STATES:
        # Not what it was sealed with once: its run's status may be another now.
        return not placed.seal_due
    return job.state in ENDED_STATES or job.state is JobState.PAUSED


def all_work(connection: sqlite3.Connection, now: datetime) -> list[Work]:
    """Every job that has or may have a step to take. Light: a hundred thousand are told in a fraction of a second."""
    states = ", ".join(f"'{s.value}'" for s in sorted(UNPROVEN_STATES))
    rows = connection.execute(
        f"SELECT job_id, run, equipment_id, destination, priority, enqueue_position, revision, due, pause FROM jobs"
        f" WHERE state IN ({states}) OR (state = 'cancelled' AND swept = 0) ORDER BY enqueue_position"
    )
    return [*_as_work(rows, now), *(work_of(placed, now) for placed in jobs_to_seal(connection))]


def _as_work(
    rows: Iterator[tuple[str, str, str, str, int, int, int, float | None, float | None]], now: datetime
) -> Iterator[Work]:
    for job_id, run, equipment_id, destination, priority, place, revision, due, pause in rows:
        left = 0.0
        if due is not None:
            left = max(0.0, (datetime.fromtimestamp(due, UTC) - now).total_seconds())
            left = left if pause is None else min(left, pause)
        yield Work(
            job_id, run, sys.intern(equipment_id), sys.intern(destination), priority, place, revision, left, over=False
        )
