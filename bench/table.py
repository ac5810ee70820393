"""A benchmark row: ours and its peer, measured alternately, compared, and noted for later."""

from __future__ import annotations

import inspect
import json
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

RESULTS = Path(__file__).with_name("results.jsonl")
ROUNDS = 3


class Better(Enum):
    """Which way a value improves, and so which side of `Row.target` the ratio must lie on."""

    HIGHER = "higher"
    LOWER = "lower"


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement. `details` are further figures of the same run, by name with unit (`p99_ms`)."""

    value: float
    details: Mapping[str, float] = field(default_factory=dict)


Measure = Callable[[], Sample] | Callable[[], Awaitable[Sample]]


@dataclass(frozen=True, slots=True)
class Row:
    """What is measured and what it must reach.

    `target`: ours divided by the peer's, at least (Better.HIGHER) or at most (Better.LOWER). `limits`: most that a
    detail of ours may be. `around` is entered once for all rounds, for servers and input files. A row with two peers is
    two rows of one name. A round measures ours and the peer, in changing order.
    """

    name: str
    unit: str
    better: Better
    target: float
    peer: str
    run_ours: Measure
    run_peer: Measure
    limits: Mapping[str, float] = field(default_factory=dict)
    around: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
    rounds: int = ROUNDS


@dataclass(frozen=True, slots=True)
class Result:
    """Medians over the rounds. `details` are ours, and those of the peer with `peer_` before their names."""

    name: str
    unit: str
    value: float
    peer: str
    peer_value: float
    ratio: float
    target: float
    met: bool
    details: Mapping[str, float]

    def json_line(self) -> str:
        return json.dumps(
            {
                "name": self.name,
                "value": self.value,
                "unit": self.unit,
                "peer": self.peer,
                "peer_value": self.peer_value,
                "ratio": self.ratio,
                "target": self.target,
                "met": self.met,
                **self.details,
            }
        )


async def _measure(measure: Measure) -> Sample:
    outcome = measure()
    return await outcome if inspect.isawaitable(outcome) else outcome


async def run_row(row: Row) -> Result:
    """Measures a row in alternating rounds, so that a busy moment of the machine hits both sides."""
    ours: list[Sample] = []
    peers: list[Sample] = []
    async with row.around():
        for number in range(row.rounds):
            pairs = [(ours, row.run_ours), (peers, row.run_peer)]
            for samples, measure in pairs if number % 2 == 0 else reversed(pairs):
                samples.append(await _measure(measure))
    value = statistics.median(sample.value for sample in ours)
    peer_value = statistics.median(sample.value for sample in peers)
    details = {
        prefix + name: statistics.median(sample.details[name] for sample in samples)
        for prefix, samples in (("", ours), ("peer_", peers))
        for name in samples[0].details
    }
    ratio = value / peer_value
    reached = ratio >= row.target if row.better is Better.HIGHER else ratio <= row.target
    return Result(
        name=row.name,
        unit=row.unit,
        value=value,
        peer=row.peer,
        peer_value=peer_value,
        ratio=ratio,
        target=row.target,
        met=reached and all(details[name] <= most for name, most in row.limits.items()),
        details=details,
    )


def note_result(result: Result, path: Path = RESULTS) -> None:
    with path.open("a", encoding="utf-8") as results:
        results.write(result.json_line() + "\n")


def format_table(results: Sequence[Result]) -> str:
    """A table for people."""
    lines = [("row", "ours", "peer's", "unit", "ratio", "target", "met", "peer", "details")]
    for result in results:
        lines.append(
            (
                result.name,
                f"{result.value:,.2f}",
                f"{result.peer_value:,.2f}",
                result.unit,
                f"{result.ratio:.2f}",
                f"{result.target:.2f}",
                "yes" if result.met else "NO",
                result.peer,
                " ".join(f"{name}={value:,.1f}" for name, value in result.details.items()),
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
