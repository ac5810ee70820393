"""Which seals are due: found by what the read models hold of jobs and of their runs, also those that are due anew."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace

from services.sync_engine.jobs.job import PROVEN_STATES, WaitCondition
from services.sync_engine.jobs.read_model import PROVEN_ROWS, JobFilter, PlacedJob, jobs_where, last_of_each

# As `Job.seal_is_due`.
_DUE = (
    f"proven.{PROVEN_ROWS} AND proven.matched"
    " AND NOT (proven.sealed_status IS NOT NULL AND runs.sync_status IS 'cleaned')"
    " AND (proven.sealed_status IS NOT runs.sync_status"
    " OR proven.sealed_overrides != COALESCE(runs.override_count, 0)"
    f" OR (proven.waits_for IS NOT NULL AND proven.waits_for != '{WaitCondition.CLEANUP_INTERLOCK}'))"
)
# The planner would choose the index of states, and look at every row of a table that is a hundred times as large.
_AMONG_ALL = f"SELECT job_id FROM jobs AS proven INDEXED BY jobs_proven LEFT JOIN runs USING (run) WHERE {_DUE}"
_AMONG_A_FEW = f"SELECT job_id FROM jobs AS proven LEFT JOIN runs USING (run) WHERE {_DUE}"


def jobs_to_seal(connection: sqlite3.Connection) -> list[PlacedJob]:
    """The last job of each run and destination whose data is proven and not sealed with the run's present status and
    overrides, or whose last seal failed."""
    return _due(connection, _AMONG_ALL)


def jobs_of_run_to_seal(connection: sqlite3.Connection, run: str) -> list[PlacedJob]:
    """As `jobs_to_seal`, of one run."""
    return _due(connection, f"{_AMONG_ALL} AND proven.run = ?", run)


def jobs_as_work(connection: sqlite3.Connection, job_ids: Sequence[str]) -> list[PlacedJob]:
    """These jobs, each with whether `jobs_to_seal` would tell of it."""
    placed = jobs_where(connection, JobFilter(job_ids=job_ids))
    proven = [p.job.job_id for p in placed if p.job.state in PROVEN_STATES]
    if not proven:
        return placed
    among = f"{_AMONG_A_FEW} AND proven.job_id IN ({', '.join('?' * len(proven))})"
    due = {p.job.job_id for p in _due(connection, among, *proven)}
    return [replace(p, seal_due=p.job.job_id in due) for p in placed]


def _due(connection: sqlite3.Connection, found: str, *values: str) -> list[PlacedJob]:
    return [replace(p, seal_due=True) for p in last_of_each(connection, f"jobs.job_id IN ({found})", *values)]
