"""Proven copies by when they were read back last: what tells, without looking at any job, which is due next."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from google.protobuf.message import Message

from labferry.events.v1 import equipment_events_pb2
from labferry.events.v1 import job_events_pb2 as events
from libs.event_log.event import RecordedEvent
from services.sync_engine.engine_log import recorded_at
from services.sync_engine.jobs.job import AUDIT, BEFORE_CLEANUP, REQUEST, SCRUB, Job
from services.sync_engine.jobs.read_model import JobFilter, PlacedJob, jobs_where
from services.sync_engine.jobs.read_since import read_since

_MOST_FAILED = 5
"""More passes that failed in a row than this make the pause before the next one no longer."""


_AT_ONCE = 0.0


class _Moment(NamedTuple):
    time: float
    position: int


class CopiesProjection:
    """One row a proven copy: how many passes in a row matched, or failed, when the last pass was, and when the file
    that was not read for longest was read, whether or not it matched then; and whether another copy of the run has
    another manifest. `looked` is 0 while a pass is due at once; `mending`: the engine's own last one found what a
    repair may mend, and none has come to its end since. `looked_at` and `oldest_at` are the positions of the events
    that tell so. It needs the rows of `jobs`."""

    name = "copies"
    tables: Sequence[str] = ("copies",)

    def create(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "CREATE TABLE copies (job_id TEXT PRIMARY KEY, run TEXT NOT NULL, equipment_id TEXT NOT NULL,"
            " destination TEXT NOT NULL, passes INTEGER NOT NULL, failed INTEGER NOT NULL, looked REAL NOT NULL,"
            " looked_at INTEGER NOT NULL, oldest REAL NOT NULL, oldest_at INTEGER NOT NULL,"
            " manifest TEXT NOT NULL, differs INTEGER NOT NULL, mending INTEGER NOT NULL) WITHOUT ROWID"
        )
        connection.execute(
            "CREATE INDEX copies_by_pass ON copies (equipment_id, destination, passes, failed, looked, looked_at)"
        )
        connection.execute("CREATE INDEX copies_by_age ON copies (equipment_id, destination, oldest, oldest_at)")
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
        job_id, recorded = event.stream.removeprefix("job-"), recorded_at(event)
        at = _Moment(recorded.timestamp(), event.position)
        match payload:
            case events.JobVerified() if payload.occasion == BEFORE_CLEANUP:
                self._read(connection, job_id, at._replace(time=read_since(payload, recorded).timestamp()))
            case events.JobVerified():
                self._passed(connection, job_id, at, read_since(payload, recorded), payload.manifest_sha256)
            case events.JobVerificationFailed():
                self._failed(connection, job_id, payload, at, read_since(payload, recorded))
            case events.JobFilesScrubbed():
                oldest = payload.oldest_evidence_time.ToDatetime(tzinfo=UTC).timestamp()
                self._read(connection, job_id, at._replace(time=oldest))
            case events.JobCopyRepaired():
                connection.execute("UPDATE copies SET passes = 0 WHERE job_id = ?", (job_id,))
            case events.JobRepairEnded():
                self._mended(connection, job_id, at, payload.file_count > 0)
            case _:
                pass

    def _read(self, connection: sqlite3.Connection, job_id: str, oldest: _Moment) -> None:
        connection.execute("UPDATE copies SET oldest = ?, oldest_at = ? WHERE job_id = ?", (*oldest, job_id))

    def _mended(self, connection: sqlite3.Connection, job_id: str, at: _Moment, anything: bool) -> None:
        # What was put back is to be read again at once, though not for ever: storage may spoil what it gets.
        again = "failed < 2" if anything else "FALSE"
        connection.execute("UPDATE copies SET mending = 0 WHERE job_id = ?", (job_id,))
        connection.execute(f"UPDATE copies SET looked = 0 WHERE job_id = ? AND {again}", (job_id,))
        connection.execute(
            f"UPDATE copies SET looked = ?, looked_at = ? WHERE job_id = ? AND looked = 0 AND NOT {again}",
            (*at, job_id),
        )

    def _failed(
        self,
        connection: sqlite3.Connection,
        job_id: str,
        failed: events.JobVerificationFailed,
        at: _Moment,
        oldest: datetime,
    ) -> None:
        if failed.HasField("oldest_evidence_time"):
            oldest = failed.oldest_evidence_time.ToDatetime(tzinfo=UTC)
        self._read(connection, job_id, at._replace(time=oldest.timestamp()))
        mends = failed.report.expected > 0 and failed.occasion in (AUDIT, SCRUB, BEFORE_CLEANUP)
        if mends:
            # Until what could be mended is: a repair that was cut off, or never begun, is no matter of waiting.
            at = at._replace(time=_AT_ONCE)
        if mends and failed.occasion == BEFORE_CLEANUP:
            connection.execute("UPDATE copies SET passes = 0, looked = 0 WHERE job_id = ?", (job_id,))
            return
        if failed.occasion == SCRUB:
            # A copy of which portion after portion fails must not put off its next pass each time.
            connection.execute(
                "UPDATE copies SET passes = 0, looked = ?, looked_at = ? WHERE job_id = ? AND passes > 0",
                (*at, job_id),
            )
            return
        if failed.occasion == REQUEST:
            # It repairs nothing: the engine's own pass, which does, comes at once, and so does the one that shows what
            # was put back. Somebody looks after this copy: what was in vain before is no matter of waiting any more.
            connection.execute("UPDATE copies SET passes = 0, failed = 0, looked = 0 WHERE job_id = ?", (job_id,))
            return
        connection.execute(
            # A reading after a repair that was cut off begins the same once more.
            "UPDATE copies SET passes = 0, failed = MIN(failed + NOT (mending AND ?), ?), mending = ?, looked = ?,"
            " looked_at = ? WHERE job_id = ?",
            (mends, _MOST_FAILED, mends, *at, job_id),
        )

    def _passed(
        self, connection: sqlite3.Connection, job_id: str, at: _Moment, oldest: datetime, manifest: str
    ) -> None:
        first = at._replace(time=oldest.timestamp())
        again = connection.execute(
            "UPDATE copies SET passes = passes + 1, failed = 0, mending = 0, looked = ?, looked_at = ?, oldest = ?,"
            " oldest_at = ? WHERE job_id = ?",
            (*at, *first, job_id),
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
            "INSERT INTO copies SELECT job_id, run, equipment_id, destination, 1, 0, ?, ?, ?, ?, ?, 0, 0 FROM jobs"
            " WHERE job_id = ?",
            (*at, *first, manifest, job_id),
        )
        connection.execute(
            "UPDATE copies SET differs = (SELECT MIN(manifest) != MAX(manifest) FROM copies AS each"
            " WHERE each.run = copies.run) WHERE run = (SELECT run FROM jobs WHERE job_id = ?)",
            (job_id,),
        )


@dataclass(frozen=True, slots=True)
class DueCopy:
    """`since`: the last pass, or the time of the oldest evidence, as the event at `position` has it. It is due `pause`
    later."""

    job_id: str
    since: datetime
    position: int
    pause: timedelta


def next_to_audit(
    connection: sqlite3.Connection,
    equipment_id: str,
    destination: str,
    passes: int,
    interval: timedelta,
    now: datetime,
) -> Sequence[DueCopy]:
    """Copies with fewer passes than wanted, among them that which is due first, whether or not times that lie after
    `now` count. A second pass of the engine's own that fails in a row, and each further one up to the fifth, doubles
    the pause before the next."""
    rows = [(0, failed) for failed in range(_MOST_FAILED + 1)] + [(number, 0) for number in range(1, passes)]
    return [
        copy
        for matched, failed in rows
        for copy in _first(
            connection,
            _Wanted(
                "looked",
                "equipment_id = ? AND destination = ? AND passes = ? AND failed = ?",
                (equipment_id, destination, matched, failed),
                _pause(interval, failed),
            ),
            now,
        )
    ]


def due_again(
    connection: sqlite3.Connection, job_ids: Sequence[str], interval: timedelta
) -> Mapping[str, datetime | None]:
    """Of those jobs whose last pass over their proven copy failed: the time of the next; None: as soon as it may be."""
    found = {}
    for job_id in job_ids:
        row = connection.execute(
            "SELECT failed, looked FROM copies WHERE job_id = ? AND passes = 0", (job_id,)
        ).fetchone()
        if row is not None:
            failed, looked = row
            found[job_id] = datetime.fromtimestamp(looked, UTC) + _pause(interval, failed) if looked else None
    return found


def _pause(interval: timedelta, failed: int) -> timedelta:
    return interval * (1 << max(0, failed - 1))


def next_to_scrub(
    connection: sqlite3.Connection, equipment_id: str, destination: str, pause: timedelta, now: datetime
) -> Sequence[DueCopy]:
    """Copies, among them that with the file that was not read for longest, whether or not times that lie after `now`
    count."""
    wanted = _Wanted("oldest", "equipment_id = ? AND destination = ?", (equipment_id, destination), pause)
    return _first(connection, wanted, now)


def jobs_that_rotted(connection: sqlite3.Connection) -> list[PlacedJob]:
    """Jobs whose last pass over their proven copy failed."""
    ids = [row[0] for row in connection.execute("SELECT job_id FROM copies WHERE passes = 0").fetchall()]
    return jobs_where(connection, JobFilter(job_ids=ids)) if ids else []


def jobs_of_runs_that_differ(connection: sqlite3.Connection) -> Mapping[str, Sequence[Job]]:
    """The jobs of each run whose proven copies don't all have the same manifest, in the order they were queued."""
    runs = connection.execute("SELECT DISTINCT run FROM copies WHERE differs = 1").fetchall()
    return {run: [placed.job for placed in jobs_where(connection, JobFilter(run=run))] for (run,) in runs}


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Rows that meet a condition, by a column with a time, which has the position beside it."""

    column: str
    condition: str
    values: tuple[str | int, ...]
    pause: timedelta


def _first(connection: sqlite3.Connection, wanted: _Wanted, now: datetime) -> list[DueCopy]:
    """The first by its time, and the first of those whose time lies after `now`."""
    column, found = wanted.column, []
    for more, values in (("", ()), (f" AND {column} > ?", (now.timestamp(),))):
        row = connection.execute(
            f"SELECT job_id, {column}, {column}_at FROM copies WHERE {wanted.condition}{more}"
            f" ORDER BY {column}, {column}_at LIMIT 1",
            (*wanted.values, *values),
        ).fetchone()
        if row is not None:
            found.append(DueCopy(row[0], datetime.fromtimestamp(row[1], UTC), row[2], wanted.pause))
    return found
