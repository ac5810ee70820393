"""What commands print: tables for people or JSON for programs on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.json_form import json_form

# Rows are never folded to the terminal's width: an id or a path that is cut in two can't be copied.
console = Console(highlight=False, width=10_000)
errors = Console(stderr=True, highlight=False)


class OutputFormat(StrEnum):
    TABLE = "table"
    JSON = "json"


def print_json(value: Any) -> None:
    """One compact JSON value on a line of its own."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def print_message(message: Message) -> None:
    print_json(json_form(message))


def print_messages(messages: Iterable[Message]) -> None:
    """A JSON array."""
    print_json([json_form(m) for m in messages])


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Cells are shown as they are: nothing in a run's name is taken for markup."""
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    console.print(table, soft_wrap=True)


def visible(text: str) -> str:
    """Control characters would let a file's name rewrite the terminal: they are shown as escapes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def moment(stamp: Timestamp) -> str:
    """UTC, whole seconds."""
    return f"{stamp.ToDatetime():%Y-%m-%dT%H:%M:%SZ}"


def size(nbytes: float) -> str:
    """Binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if nbytes < 1024 or unit == "GiB":
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1024
    raise AssertionError("the last unit always returns")


def note(text: str) -> None:
    """A line for the person at the terminal."""
    errors.print(Text(text), soft_wrap=True)
