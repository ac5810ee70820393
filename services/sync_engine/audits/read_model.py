"""Proven copies by when they were read back last: what tells, without looking at any job, which is due next."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from google.protobuf.message import Message

from labferry.events.v1 import equipment_events_pb2
from labferry.events.v1 import job_events_pb2 as events
from libs.event_log.event import RecordedEvent
from services.sync_engine.engine_log import recorded_at
from services.sync_engine.jobs.job import BEFORE_CLEANUP, SCRUB, Job
from services.sync_engine.jobs.read_model import JobFilter, PlacedJob, jobs_where

_MOST_FAILED = 5
"""More passes that failed in a row than this make the pause before the next one no longer."""


class CopiesProjection:
    """One row a proven copy: how many passes in a row matched, or failed, when the last pass was, and when the file
    that was not read for longest was read, whether or not it matched then; and whether another copy of the run has
    another manifest. It needs the rows of `jobs`."""

    name = "copies"
    tables: Sequence[str] = ("copies",)

    def create(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "CREATE TABLE copies (job_id TEXT PRIMARY KEY, run TEXT NOT NULL, equipment_id TEXT NOT NULL,"
            " destination TEXT NOT NULL, passes INTEGER NOT NULL, failed INTEGER NOT NULL, looked REAL NOT NULL,"
            " oldest REAL NOT NULL, manifest TEXT NOT NULL, differs INTEGER NOT NULL) WITHOUT ROWID"
        )
        connection.execute("CREATE INDEX copies_by_pass ON copies (equipment_id, destination, passes, failed, looked)")
        connection.execute("CREATE INDEX copies_by_age ON copies (equipment_id, destination, oldest)")
        connection.execute("CREATE INDEX copies_that_rotted ON copies (job_id) WHERE passes = 0")
        connection.execute("CREATE INDEX copies_by_run ON copies (run, destination)")
        connection.execute("CREATE INDEX copies_that_differ ON copies (run) WHERE differs = 1")

    def apply(self, connection: sqlite3.Connection, event: RecordedEvent, payload: Message | None) -> None:
        if isinstance(payload, equipment_events_pb2.DestinationTrusted):
            # What was given up there may be put back now: that is no matter of waiting any more.
            connection.execute(
                "UPDATE copies SET failed = 0, looked = 0 WHERE passes = 0 AND equipment_id = ? AND destination = ?",
                (payload.equipment_id, payload.destination),
            )
        if payload is None or not event.stream.startswith("job-"):
            return
        job_id, at = event.stream.removeprefix("job-"), recorded_at(event).timestamp()
        match payload:
            case events.JobVerified() if payload.occasion == BEFORE_CLEANUP:
                connection.execute("UPDATE copies SET oldest = ? WHERE job_id = ?", (at, job_id))
            case events.JobVerified():
                self._passed(connection, job_id, at, payload.manifest_sha256)
            case events.JobVerificationFailed():
                self._failed(connection, job_id, payload, at)
            case events.JobFilesScrubbed():
                oldest = payload.oldest_evidence_time.ToDatetime(tzinfo=UTC).timestamp()
                connection.execute("UPDATE copies SET oldest = ? WHERE job_id = ?", (oldest, job_id))
            case events.JobCopyRepaired():
                # What was put back is to be read again at once, though not for ever: storage may spoil what it gets.
                connection.execute("UPDATE copies SET passes = 0 WHERE job_id = ?", (job_id,))
                connection.execute("UPDATE copies SET looked = 0 WHERE job_id = ? AND failed < 2", (job_id,))
            case _:
                pass

    def _failed(
        self, connection: sqlite3.Connection, job_id: str, failed: events.JobVerificationFailed, at: float
    ) -> None:
        oldest = at
        if failed.HasField("oldest_evidence_time"):
            oldest = failed.oldest_evidence_time.ToDatetime(tzinfo=UTC).timestamp()
        if failed.occasion == SCRUB:
            # A copy of which portion after portion fails must not put off its next pass each time.
            connection.execute("UPDATE copies SET looked = ? WHERE job_id = ? AND passes > 0", (at, job_id))
            connection.execute("UPDATE copies SET passes = 0, oldest = ? WHERE job_id = ?", (oldest, job_id))
            return
        connection.execute(
            "UPDATE copies SET passes = 0, failed = MIN(failed + 1, ?), looked = ?, oldest = ? WHERE job_id = ?",
            (_MOST_FAILED, at, oldest, job_id),
        )

    def _passed(self, connection: sqlite3.Connection, job_id: str, at: float, manifest: str) -> None:
        again = connection.execute(
            "UPDATE copies SET passes = passes + 1, failed = 0, looked = ?, oldest = ? WHERE job_id = ?",
            (at, at, job_id),
        )
        if again.rowcount:
            return
        # A later job speaks for the destination: its manifest is the one that belongs there.
        connection.execute(
            "DELETE FROM copies WHERE job_id != ? AND (run, destination) ="
            " (SELECT run, destination FROM jobs WHERE job_id = ?)",
            (job_id, job_id),
        )
        connection.execute(
            "INSERT INTO copies SELECT job_id, run, equipment_id, destination, 1, 0, ?, ?, ?, 0 FROM jobs"
            " WHERE job_id = ?",
            (at, at, manifest, job_id),
        )
        connection.execute(
            "UPDATE copies SET differs = (SELECT MIN(manifest) != MAX(manifest) FROM copies AS each"
            " WHERE each.run = copies.run) WHERE run = (SELECT run FROM jobs WHERE job_id = ?)",
            (job_id,),
        )


@dataclass(frozen=True, slots=True)
class DueCopy:
    """`since`: the last pass, or the time of the oldest evidence. It is due `pause` later."""

    job_id: str
    since: datetime
    pause: timedelta


def next_to_audit(
    connection: sqlite3.Connection, equipment_id: str, destination: str, passes: int, interval: timedelta
) -> DueCopy | None:
    """The copy with fewer passes than wanted that is due first. A second pass that fails in a row, and each further one
    up to the fifth, doubles the pause before the next."""
    rows = [(0, failed) for failed in range(_MOST_FAILED + 1)] + [(number, 0) for number in range(1, passes)]
    found = [
        _first(
            connection,
            "SELECT job_id, looked FROM copies WHERE equipment_id = ? AND destination = ? AND passes = ? AND failed = ?"
            " ORDER BY looked LIMIT 1",
            (equipment_id, destination, matched, failed),
            interval * (1 << max(0, failed - 1)),
        )
        for matched, failed in rows
    ]
    return min((c for c in found if c is not None), key=lambda copy: copy.since + copy.pause, default=None)


def next_to_scrub(
    connection: sqlite3.Connection, equipment_id: str, destination: str, pause: timedelta
) -> DueCopy | None:
    """The copy with the file that was not read for longest."""
    return _first(
        connection,
        "SELECT job_id, oldest FROM copies WHERE equipment_id = ? AND destination = ? ORDER BY oldest LIMIT 1",
        (equipment_id, destination),
        pause,
    )


def jobs_that_rotted(connection: sqlite3.Connection) -> list[PlacedJob]:
    """Jobs whose last pass over their proven copy failed."""
    ids = [row[0] for row in connection.execute("SELECT job_id FROM copies WHERE passes = 0").fetchall()]
    return jobs_where(connection, JobFilter(job_ids=ids)) if ids else []


def jobs_of_runs_that_differ(connection: sqlite3.Connection) -> Mapping[str, Sequence[Job]]:
    """The jobs of each run whose proven copies don't all have the same manifest, in the order they were queued."""
    runs = connection.execute("SELECT DISTINCT run FROM copies WHERE differs = 1").fetchall()
    return {run: [placed.job for placed in jobs_where(connection, JobFilter(run=run))] for (run,) in runs}


def _first(
    connection: sqlite3.Connection, query: str, values: tuple[str | int, ...], pause: timedelta
) -> DueCopy | None:
    row = connection.execute(query, values).fetchone()
    return None if row is None else DueCopy(row[0], datetime.fromtimestamp(row[1], UTC), pause)
