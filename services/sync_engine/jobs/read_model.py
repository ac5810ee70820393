"""Jobs as rows that can be listed: a projection of their events, and the queries on it."""

from __future__ import annotations

import base64
import binascii
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from google.protobuf.message import Message

from libs.event_log.event import RecordedEvent
from libs.service_kit.errors import FieldViolation, InvalidRequestError
from services.sync_engine.engine_log import recorded_at
from services.sync_engine.jobs.job import PROVEN_STATES, Job, JobState, WaitCondition
from services.sync_engine.jobs.job_history import evolve

_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Job)


class JobsProjection:
    """One row a job: the folded job, and the columns that lists filter by."""

    name = "jobs"
    tables: Sequence[str] = ("jobs",)

    def create(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            """
            CREATE TABLE jobs (
                job_id TEXT PRIMARY KEY,
                run TEXT NOT NULL,
                equipment_id TEXT NOT NULL,
                destination TEXT NOT NULL,
                state TEXT NOT NULL,
                sealed_status TEXT,
                sealed_overrides INTEGER NOT NULL,
                matched INTEGER NOT NULL,
                began INTEGER NOT NULL,
                swept INTEGER NOT NULL,
                priority INTEGER NOT NULL,
                revision INTEGER NOT NULL,
                due REAL,
                pause REAL,
                waits_for TEXT,
                enqueue_position INTEGER NOT NULL,
                last_position INTEGER NOT NULL,
                data BLOB NOT NULL
            ) WITHOUT ROWID
            """
        )
        connection.execute("CREATE INDEX jobs_by_run ON jobs (run, enqueue_position)")
        connection.execute("CREATE INDEX jobs_by_state ON jobs (state, enqueue_position)")
        connection.execute("CREATE INDEX jobs_by_equipment ON jobs (equipment_id, state)")
        connection.execute(
            "CREATE INDEX jobs_proven ON jobs (run, sealed_status, sealed_overrides, matched, waits_for, state)"
            f" WHERE {PROVEN_ROWS}"
        )
        connection.execute("CREATE INDEX jobs_that_wait ON jobs (waits_for) WHERE waits_for IS NOT NULL")
        connection.execute("CREATE INDEX jobs_by_position ON jobs (enqueue_position)")
        connection.execute("CREATE INDEX jobs_by_change ON jobs (last_position)")
        connection.execute("CREATE INDEX jobs_by_destination ON jobs (equipment_id, destination, began)")

    def apply(self, connection: sqlite3.Connection, event: RecordedEvent, payload: Message | None) -> None:
        if payload is None or not event.stream.startswith("job-"):
            return
        job_id = event.stream.removeprefix("job-")
        row = connection.execute("SELECT data FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
        job = evolve(_DECODER.decode(row[0]) if row else None, payload, recorded_at(event), event.actor, event.reason)
        changing = (
            *(job.state.value, job.sealed_status, job.sealed_overrides, int(job.verify_passes > 0)),
            *(int(job.attempt > 0), int(job.swept), job.priority, job.revision),
            *_held_back(job),
            _waits_for(job),
            *(event.position, _ENCODER.encode(job)),
        )
        if row is None:
            connection.execute(
                "INSERT INTO jobs (job_id, run, equipment_id, destination, enqueue_position, state, sealed_status,"
                " sealed_overrides, matched, began, swept, priority, revision, due, pause, waits_for, last_position,"
                " data)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (job.job_id, job.run, job.equipment_id, job.destination, event.position, *changing),
            )
        else:
            connection.execute(
                "UPDATE jobs SET state = ?, sealed_status = ?, sealed_overrides = ?, matched = ?, began = ?, swept = ?,"
                " priority = ?, revision = ?, due = ?, pause = ?, waits_for = ?, last_position = ?, data = ?"
                " WHERE job_id = ?",
                (*changing, job_id),
            )


def _waits_for(job: Job) -> str | None:
    if job.wait is not None:
        return job.wait.condition.value
    return WaitCondition.CLEANUP_INTERLOCK.value if job.may_be_the_source else None


def _held_back(job: Job) -> tuple[float | None, float | None]:
    """Until when, in seconds since 1970, and how long that was when it was set, in seconds."""
    due, pause = job.next_attempt, job.backoff
    if due is None and job.wait is not None:
        due, pause = job.wait.next_try, job.wait.pause
    if due is None:
        return None, None
    return due.timestamp(), None if pause is None else pause.total_seconds()


@dataclass(frozen=True, slots=True)
class PlacedJob:
    """A job with where in the log it was queued and last changed. `seal_due`: it was found to be the last job of its
    run and destination, and to be sealed, be it anew."""

    job: Job
    enqueue_position: int
    last_position: int
    seal_due: bool = False


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs; an empty field means any."""

    run: str = ""
    equipment_id: str = ""
    destination: str = ""
    states: Sequence[JobState] = ()
    job_ids: Sequence[str] = ()
    changed_after: int = 0

    def accepts(self, job: Job) -> bool:
        return (
            (not self.run or job.run == self.run)
            and (not self.equipment_id or job.equipment_id == self.equipment_id)
            and (not self.destination or job.destination == self.destination)
            and (not self.states or job.state in self.states)
            and (not self.job_ids or job.job_id in self.job_ids)
        )

    def sql(self) -> tuple[str, list[str | int]]:
        conditions, values = ["1"], list[str | int]()
        for column in ("run", "equipment_id", "destination"):
            if getattr(self, column):
                conditions.append(f"{column} = ?")
                values.append(getattr(self, column))
        for column, wanted in (("state", [s.value for s in self.states]), ("job_id", list(self.job_ids))):
            if wanted:
                conditions.append(f"{column} IN ({', '.join('?' * len(wanted))})")
                values += wanted
        if self.changed_after:
            conditions.append("last_position > ?")
            values.append(self.changed_after)
        return " AND ".join(conditions), values


_COLUMNS = "jobs.data, jobs.enqueue_position, jobs.last_position"


def jobs_where(
    connection: sqlite3.Connection, wanted: JobFilter, *, after: int = 0, limit: int = -1
) -> list[PlacedJob]:
    """Matching jobs in the order they were queued, from behind position `after`."""
    where, values = wanted.sql()
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM jobs WHERE {where} AND enqueue_position > ? ORDER BY enqueue_position LIMIT ?",
        (*values, after, limit),
    )
    return [_placed(row) for row in rows.fetchall()]


_FOR_SOMEBODY = (
    WaitCondition.GATE,
    WaitCondition.OPERATOR,
    WaitCondition.DESTINATION_FULL,
    WaitCondition.DESTINATION_UNREACHABLE,
    WaitCondition.EQUIPMENT_NOT_CONFIGURED,
    WaitCondition.SECRETS_UNAVAILABLE,
    WaitCondition.STATE_DISK_FULL,
)


def jobs_failed(connection: sqlite3.Connection) -> list[PlacedJob]:
    """The last job of each run and destination that failed."""
    return [p for p in jobs_where(connection, JobFilter(states=(JobState.FAILED,))) if not _is_outdone(connection, p)]


def jobs_waiting_for_somebody(connection: sqlite3.Connection) -> list[PlacedJob]:
    """Jobs whose wait doesn't end by itself."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM jobs WHERE waits_for IN ({', '.join('?' * len(_FOR_SOMEBODY))})"
        " AND state NOT IN ('failed', 'cancelled', 'cleaned') ORDER BY enqueue_position",
        [condition.value for condition in _FOR_SOMEBODY],
    )
    return [_placed(row) for row in rows.fetchall()]


def jobs_not_elsewhere(connection: sqlite3.Connection) -> list[PlacedJob]:
    """The last job of each run and destination of which a cleanup could not tell the copy from the run."""
    return last_of_each(connection, "jobs.waits_for = ?", WaitCondition.CLEANUP_INTERLOCK.value)


def _is_outdone(connection: sqlite3.Connection, placed: PlacedJob) -> bool:
    later = connection.execute(
        "SELECT 1 FROM jobs WHERE run = ? AND destination = ? AND enqueue_position > ?",
        (placed.job.run, placed.job.destination, placed.enqueue_position),
    )
    return later.fetchone() is not None


def jobs_running(connection: sqlite3.Connection) -> list[PlacedJob]:
    """Jobs in the middle of an attempt, as far as the log knows."""
    return jobs_where(connection, JobFilter(states=(JobState.RUNNING,)))


PROVEN_ROWS = "state IN ('verified', 'cleanup_eligible')"
"""The rows that the index `jobs_proven` holds."""


def last_of_each(connection: sqlite3.Connection, condition: str, *values: str) -> list[PlacedJob]:
    """Jobs that fulfil the condition on `jobs`, and are the last of their run and destination."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM jobs WHERE {condition} AND NOT EXISTS ("
        "SELECT 1 FROM jobs AS later WHERE later.run = jobs.run AND later.destination = jobs.destination"
        " AND later.enqueue_position > jobs.enqueue_position) ORDER BY enqueue_position",
        values,
    )
    return [_placed(row) for row in rows.fetchall()]


def knows_jobs_below(connection: sqlite3.Connection, folder: str) -> bool:
    """Whether there ever was a job of a run, or of any run below a folder."""
    found = connection.execute(
        "SELECT 1 FROM jobs WHERE run = ? OR (run > ? AND run < ?) LIMIT 1", (folder, f"{folder}/", f"{folder}0")
    )
    return found.fetchone() is not None


def destinations_used(connection: sqlite3.Connection) -> set[tuple[str, str]]:
    """(equipment, destination) of every job that was ever begun."""
    rows = connection.execute("SELECT DISTINCT equipment_id, destination FROM jobs WHERE began = 1")
    return set(rows.fetchall())


def _placed(row: tuple[bytes, int, int]) -> PlacedJob:
    return PlacedJob(_DECODER.decode(row[0]), row[1], row[2])


def latest_by_destination(jobs: Sequence[Job]) -> dict[str, Job]:
    """The last job of each destination, of one run's jobs in the order they were queued."""
    return {job.destination: job for job in jobs}


def last_proven(jobs: Sequence[Job]) -> dict[str, Job]:
    """The last proven job of each destination, of one run's jobs in the order they were queued: what is proven there
    whatever became of a later one so far."""
    return latest_by_destination([job for job in jobs if job.state in PROVEN_STATES])


def page_token(position: int) -> str:
    """Opaque; it names a place in the log and so survives whatever is queued meanwhile."""
    return base64.urlsafe_b64encode(b"jobs:%d" % position).decode()


def position_of(token: str) -> int:
    """InvalidRequestError for a token that was never given out."""
    if not token:
        return 0
    try:
        name, _, digits = base64.b64decode(token.encode(), altchars=b"-_", validate=True).partition(b":")
        if name == b"jobs":
            return int(digits)
    except (binascii.Error, ValueError):
        pass
    raise InvalidRequestError(FieldViolation("page_token", "was not given out by this service"))
