"""Staged runs as rows, for lists and for the work that follows on them."""

from __future__ import annotations

import base64
import binascii
import sqlite3
from collections.abc import Collection, Sequence

import msgspec
from google.protobuf.message import Message

from libs.event_log.event import RecordedEvent
from libs.run_tree.ingest_record import StagingState
from libs.service_kit.errors import FieldViolation, InvalidRequestError
from services.sync_engine.engine_log import recorded_at
from services.sync_engine.staging.staged_run import StagedRun, evolve

_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(StagedRun)


class StagingProjection:
    """One row a staged run."""

    name = "staging"
    tables: Sequence[str] = ("staged_runs",)

    def create(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "CREATE TABLE staged_runs (run TEXT PRIMARY KEY, state TEXT NOT NULL, is_held INTEGER NOT NULL,"
            " data BLOB NOT NULL) WITHOUT ROWID"
        )
        connection.execute("CREATE INDEX staged_by_state ON staged_runs (state, run)")
        connection.execute("CREATE INDEX staged_held ON staged_runs (run) WHERE is_held = 1")

    def apply(self, connection: sqlite3.Connection, event: RecordedEvent, payload: Message | None) -> None:
        if payload is None or not event.stream.startswith("staged-"):
            return
        before = staged_run(connection, event.stream.removeprefix("staged-"))
        after = evolve(before, payload, recorded_at(event))
        row = (after.run, after.state or "", int(after.held is not None), _ENCODER.encode(after))
        connection.execute("INSERT OR REPLACE INTO staged_runs VALUES (?, ?, ?, ?)", row)


def staged_run(connection: sqlite3.Connection, run: str) -> StagedRun:
    """What the log knows of a staged run; an empty record when it knows nothing."""
    row = connection.execute("SELECT data FROM staged_runs WHERE run = ?", (run,)).fetchone()
    return StagedRun(run) if row is None else _DECODER.decode(row[0])


def staged_runs_in(
    connection: sqlite3.Connection, states: Collection[StagingState], *, after: str = "", limit: int = -1
) -> list[StagedRun]:
    """Runs in these states, sorted, from behind the path `after`."""
    rows = connection.execute(
        f"SELECT data FROM staged_runs WHERE state IN ({', '.join('?' * len(states))}) AND run > ?"
        " ORDER BY run LIMIT ?",
        (*(state.value for state in states), after, limit),
    )
    return [_DECODER.decode(row[0]) for row in rows.fetchall()]


def staged_runs_unended(connection: sqlite3.Connection, *, after: str = "", limit: int = -1) -> list[StagedRun]:
    """Runs that aren't cleared, and cleared ones with something that somebody has to look at; sorted, from behind the
    path `after`."""
    states = [state.value for state in StagingState if state is not StagingState.CLEARED]
    rows = connection.execute(
        f"SELECT data FROM staged_runs WHERE (state IN ({', '.join('?' * len(states))}) OR is_held = 1) AND run > ?"
        " ORDER BY run LIMIT ?",
        (*states, after, limit),
    )
    return [_DECODER.decode(row[0]) for row in rows.fetchall()]


def staged_runs_held(connection: sqlite3.Connection) -> list[StagedRun]:
    """Runs that something keeps from their next state."""
    rows = connection.execute("SELECT data FROM staged_runs WHERE is_held = 1 ORDER BY run")
    return [_DECODER.decode(row[0]) for row in rows.fetchall()]


def runs_cleared(connection: sqlite3.Connection) -> set[str]:
    rows = connection.execute("SELECT run FROM staged_runs WHERE state = ?", (StagingState.CLEARED.value,))
    return {row[0] for row in rows.fetchall()}


def page_token(run: str) -> str:
    """Opaque; it names a place in the order, and so survives whatever is pushed meanwhile."""
    return base64.urlsafe_b64encode(b"staged:" + run.encode()).decode()


def place_of(token: str) -> str:
    """InvalidRequestError for a token that was never given out."""
    if not token:
        return ""
    try:
        name, _, run = base64.b64decode(token.encode(), altchars=b"-_", validate=True).partition(b":")
        if name == b"staged":
            return run.decode()
    except (binascii.Error, ValueError):
        pass
    raise InvalidRequestError(FieldViolation("page_token", "was not given out by this service"))
