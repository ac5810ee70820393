"""Finding the runs of an equipment on a real disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from libs.run_tree.find_runs import find_projects, find_runs


def test_runs_are_found_in_order_wherever_they_may_lie(tmp_path: Path) -> None:
    for folder in (
        "EQ/.exlab-wizard/templates/Runs/Run_0",
        "EQ/b/Runs/Run_2",
        "EQ/b/Runs/Run_1",
        "EQ/b/Runs/calibration",
        "EQ/b/TestRuns/TestRun_1",
        "EQ/b/Run_stray",
        "EQ/b/Other/Run_3",
        "EQ/a/Runs/TestRun_9",
        "EQ2/a/Runs/Run_1",
    ):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "EQ/a/Runs/Run_file").write_text("no folder")
    (tmp_path / "EQ/a/Runs/Run_link").symlink_to("../../b/Runs/Run_1")
    assert [str(run) for run in find_runs(tmp_path, "EQ")] == [
        "EQ/a/Runs/TestRun_9",
        "EQ/b/Run_stray",
        "EQ/b/Runs/Run_1",
        "EQ/b/Runs/Run_2",
        "EQ/b/TestRuns/TestRun_1",
    ]
    assert [str(run) for run in find_runs(tmp_path, "EQ", "a")] == ["EQ/a/Runs/TestRun_9"]
    assert find_projects(tmp_path, "EQ") == ["a", "b"]
    assert list(find_runs(tmp_path, "NOWHERE")) == []


def test_an_equipment_folder_may_be_a_symlink_inside_its_root_and_no_other(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "disk2/EQ/a/Runs/Run_1").mkdir(parents=True)
    (tmp_path / "outside/a/Runs/Run_1").mkdir(parents=True)
    (root / "EQ").symlink_to("disk2/EQ")
    (root / "OUT").symlink_to("../outside")
    assert [str(run) for run in find_runs(root, "EQ")] == ["EQ/a/Runs/Run_1"]
    with pytest.raises(OSError, match="out of its root"):
        find_projects(root, "OUT")
    with pytest.raises(OSError, match="out of its root"):
        list(find_runs(root, "OUT"))
