"""Projections for tests."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from libs.event_log.event import RecordedEvent


class SumPerStream:
    """The sum of each stream's numbers."""

    name = "sum_per_stream"
    tables: Sequence[str] = ("sums",)

    def create(self, connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE sums (stream TEXT PRIMARY KEY, total INTEGER NOT NULL) STRICT")

    def apply(self, connection: sqlite3.Connection, event: RecordedEvent, payload: Message | None) -> None:
        if isinstance(payload, Int64Value):
            connection.execute(
                "INSERT INTO sums VALUES (?, ?) ON CONFLICT (stream) DO UPDATE SET total = total + excluded.total",
                (event.stream, payload.value),
            )


class Notes:
    """Every note by its place; `refused` is a text that it can't take."""

    name = "notes"
    tables: Sequence[str] = ("notes",)

    def __init__(self, refused: str = "") -> None:
        self.refused = refused

    def create(self, connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE notes (position INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT")

    def apply(self, connection: sqlite3.Connection, event: RecordedEvent, payload: Message | None) -> None:
        if isinstance(payload, StringValue):
            if self.refused and payload.value == self.refused:
                raise RuntimeError("this note is refused")
            connection.execute("INSERT INTO notes VALUES (?, ?)", (event.position, payload.value))


def sums(connection: sqlite3.Connection) -> dict[str, int]:
    return dict(connection.execute("SELECT stream, total FROM sums").fetchall())


def notes(connection: sqlite3.Connection) -> list[str]:
    return [text for (text,) in connection.execute("SELECT text FROM notes ORDER BY position")]
