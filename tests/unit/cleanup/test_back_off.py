"""A run that can't be cleaned is looked at less and less often while its tries come to the same."""

from __future__ import annotations

from datetime import timedelta

from services.sync_engine.cleanup.back_off import BackOff

RUN, OTHER = "CONFOCAL_01/P/Runs/Run_2026-04-17T14-32", "CONFOCAL_01/P/Runs/Run_2026-04-17T14-33"


def _hours(pauses: list[timedelta]) -> list[float]:
    return [pause / timedelta(hours=1) for pause in pauses]


def test_pauses_grow_while_nothing_changes_and_never_beyond_a_day() -> None:
    back_off = BackOff()
    assert _hours([back_off.after(RUN, "files_left") for _ in range(8)]) == [1, 2, 4, 8, 16, 24, 24, 24]


def test_another_outcome_or_news_of_the_run_begins_anew_and_other_runs_are_apart() -> None:
    back_off = BackOff()
    assert _hours([back_off.after(RUN, outcome) for outcome in ("age", "age", "gate", "gate")]) == [1, 2, 1, 2]
    assert _hours([back_off.after(OTHER, "gate")]) == [1]
    back_off.forget(RUN)
    assert _hours([back_off.after(RUN, "gate")]) == [1]
