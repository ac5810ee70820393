"""A pass reads every file once, in the order of the paths; a copy of any size in few portions that fit in memory."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.sync_engine.audits import portions
from services.sync_engine.audits.portions import PortionedPass, files_at_once, oldest_first
from services.sync_engine.transfer.path_order import by_path
from services.sync_engine.transfer.transport import CopiedFile, EvidenceGrade, VerifyOutcome

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def file(number: int, size: int) -> CopiedFile:
    return CopiedFile(b"%06d" % number, size, 0, 0, number, "")


def nothing_wrong(count: int) -> VerifyOutcome:
    return VerifyOutcome(count, count, count, (), (), (), (), "method", EvidenceGrade.E4, "host", "")


@given(st.integers(0, 10_000_000))
def test_a_large_copy_takes_few_portions_and_none_has_too_many_records(total: int) -> None:
    most = files_at_once(total)
    assert 2_000 <= most <= 16_384
    assert -(-total // most) <= max(17, -(-total // 16_384))


@pytest.mark.parametrize("least", [1, 3])
@given(sizes=st.lists(st.sampled_from([1, 1 << 29, 1 << 31]), max_size=90))
def test_a_pass_reads_every_file_once(least: int, sizes: list[int]) -> None:
    files = [file(number, size) for number, size in enumerate(sizes)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(portions, "MOST_FILES", least)
        most, reading, read = files_at_once(len(files)), PortionedPass(files), list[CopiedFile]()
        while portion := reading.next():
            assert len(portion) <= most
            assert len(portion) == 1 or sum(one.size for one in portion) <= portions.MOST_BYTES
            reading.note(portion, nothing_wrong(len(portion)))
            read += portion
    assert read == files
    outcome = reading.outcome()
    assert (outcome.matched if outcome else 0) == len(files)


@given(ages=st.lists(st.none() | st.integers(0, 50), min_size=1, max_size=90))
def test_the_files_whose_turn_was_longest_ago_come_first(ages: list[int | None]) -> None:
    files = [file(number, 1) for number in range(len(ages))]
    times = [None if age is None else NOW - timedelta(days=age) for age in ages]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(portions, "MOST_FILES", 2)
        portion = oldest_first(zip(files, times, strict=True), len(files), NOW)
        assert len(portion.files) == min(len(files), files_at_once(len(files)))
    assert list(portion.files) == sorted(portion.files, key=by_path)
    never = datetime.min.replace(tzinfo=UTC)
    turn = {one.path: time or never for one, time in zip(files, times, strict=True)}
    chosen = {one.path for one in portion.files}
    left = [turn[one.path] for one in files if one.path not in chosen]
    assert max(turn[path] for path in chosen) <= min(left, default=NOW)
    assert portion.oldest_then == min(left, default=NOW)
