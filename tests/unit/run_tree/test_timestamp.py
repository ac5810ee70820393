"""Times in run-tree files (FORMATS §1)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from libs.run_tree.timestamp import MalformedTimeError, format_time, parse_time


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-04-17T14:32:05Z", datetime(2026, 4, 17, 14, 32, 5, tzinfo=UTC)),
        ("2026-04-17T14:32:05.25Z", datetime(2026, 4, 17, 14, 32, 5, 250000, tzinfo=UTC)),
        ("2026-04-17T16:32:05+02:00", datetime(2026, 4, 17, 14, 32, 5, tzinfo=UTC)),
        ("2026-04-17T14:32:05", datetime(2026, 4, 17, 14, 32, 5, tzinfo=UTC)),
        ("2026-04-17", datetime(2026, 4, 17, tzinfo=UTC)),
    ],
)
def test_accepted_times(text: str, moment: datetime) -> None:
    assert parse_time(text) == moment


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-W16-5",
        "20260417",
        "2026-04-31",
        "2026-04-17T25:00:00Z",
        " 2026-04-17",
        "2026-04-17T14:32:05Z\n",
        "٢٠٢٦-04-17",
    ],
)
def test_malformed_times(text: str) -> None:
    with pytest.raises(MalformedTimeError):
        parse_time(text)


@pytest.mark.parametrize("text", ["2026-04-17", "2026-04-17T14:32:05"])
def test_a_zone_can_be_required(text: str) -> None:
    with pytest.raises(MalformedTimeError):
        parse_time(text, zone_required=True)


def test_written_as_whole_utc_seconds() -> None:
    east = timezone(timedelta(hours=2))
    assert format_time(datetime(2026, 4, 17, 16, 32, 5, 999999, tzinfo=east)) == "2026-04-17T14:32:05Z"
    with pytest.raises(MalformedTimeError):
        format_time(datetime(2026, 4, 17))  # noqa: DTZ001
