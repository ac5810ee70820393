"""A run's identity: what names one, what doesn't, and that nothing climbs out (SPEC §1)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.run_tree.run_path import (
    PathOutsideRootError,
    RunKind,
    RunPath,
    RunPathError,
    equipment_id_problem,
    leads_into_run,
    project_name_problem,
    resolve_inside,
    run_leaf,
)


def test_a_run_below_runs() -> None:
    run = RunPath.parse("CONFOCAL_01/Cortex Q3 Pilot/Runs/Run_2026-04-17T14-32")
    assert run == RunPath("CONFOCAL_01", "Cortex Q3 Pilot", "Runs", "Run_2026-04-17T14-32")
    assert str(run) == "CONFOCAL_01/Cortex Q3 Pilot/Runs/Run_2026-04-17T14-32"
    assert str(run.below_equipment) == "Cortex Q3 Pilot/Runs/Run_2026-04-17T14-32"
    assert run.kind_by_leaf is RunKind.EXPERIMENTAL


def test_a_run_straight_under_its_project_is_one() -> None:
    run = RunPath.parse("CONFOCAL_01/PROJ-0042/TestRun_2026-04-17T14-32")
    assert run.group == ""
    assert str(run) == "CONFOCAL_01/PROJ-0042/TestRun_2026-04-17T14-32"
    assert str(run.below_equipment) == "PROJ-0042/TestRun_2026-04-17T14-32"
    assert run.kind_by_leaf is RunKind.TEST


def test_a_leaf_in_the_other_kinds_folder_is_still_a_run() -> None:
    assert RunPath.parse("EQ/p/TestRuns/Run_x").kind_by_leaf is RunKind.EXPERIMENTAL


def test_a_projects_own_folder_is_named_like_a_run() -> None:
    project = RunPath.parse("CONFOCAL_01/Cortex Q3 Pilot")
    assert (project.is_project, project.below_equipment) == (True, PurePosixPath("Cortex Q3 Pilot"))
    assert str(project) == "CONFOCAL_01/Cortex Q3 Pilot"
    assert project.kind_by_leaf is RunKind.EXPERIMENTAL
    assert not RunPath.parse("CONFOCAL_01/Cortex Q3 Pilot/Run_x").is_project


@pytest.mark.parametrize(
    ("path", "leads"),
    [
        (b"Runs", True),
        (b"TestRuns/TestRun_x/a", True),
        (b"Run_x/a", True),
        (b"docs/Runs/a", False),
        (b"run_x", False),
        (b"\xffRuns", False),
    ],
)
def test_what_leads_into_a_run(path: bytes, leads: bool) -> None:
    assert leads_into_run(path) is leads


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "empty"),
        ("/EQ/p/Runs/Run_x", "absolute"),
        ("C:/EQ/p/Runs/Run_x", "absolute"),
        ("\\\\nas\\EQ/p/Runs/Run_x", "absolute"),
        ("EQ/../p/Runs/Run_x", "'..'"),
        ("EQ/p/Runs/..", "'..'"),
        ("EQ/..\\..\\etc/Runs/Run_x", "'..'"),
        ("EQ/./Runs/Run_x", "'.'"),
        ("EQ//Runs/Run_x", "empty segment"),
        ("EQ/p/Runs/Run_x/", "empty segment"),
        ("EQ/p\0q/Runs/Run_x", "NUL"),
        ("EQ", "1 segments"),
        ("EQ/Run_x", "2 segments"),
        ("EQ/p/Runs/Run_x/data", "5 segments"),
        ("confocal/p/Runs/Run_x", "equipment id"),
        ("1EQ/p/Runs/Run_x", "equipment id"),
        ("EQ/p/Runs/data", "no run's folder"),
        ("EQ/p/Runs/run_x", "no run's folder"),
        ("EQ/p/Others/Run_x", "'Others'"),
        ("EQ/" + "p" * 256 + "/Runs/Run_x", "longer than 255 bytes"),
    ],
)
def test_what_names_no_run_is_refused_in_one_sentence(text: str, word: str) -> None:
    with pytest.raises(RunPathError) as refusal:
        RunPath.parse(text)
    assert word in str(refusal.value)
    assert "\n" not in str(refusal.value)


_segments = st.text(
    st.characters(exclude_characters="/\\\0", exclude_categories=["Cs"]), min_size=1, max_size=40
).filter(lambda name: name not in (".", ".."))


@given(
    equipment=st.from_regex(r"[A-Z][A-Z0-9_]{0,31}", fullmatch=True),
    project=_segments,
    group=st.sampled_from(["", "Runs", "TestRuns"]),
    prefix=st.sampled_from(["Run_", "TestRun_"]),
    rest=_segments,
)
def test_every_run_path_is_its_own_text(equipment: str, project: str, group: str, prefix: str, rest: str) -> None:
    run = RunPath(equipment, project, group, prefix + rest)
    assert RunPath.parse(str(run)) == run


@given(st.text())
def test_any_text_is_a_run_or_refused(text: str) -> None:
    try:
        run = RunPath.parse(text)
    except RunPathError:
        return
    assert str(run) == text
    assert ".." not in Path(text).parts


@pytest.mark.parametrize("equipment_id", ["A", "CONFOCAL_01", "X" * 32, "E_"])
def test_right_equipment_ids(equipment_id: str) -> None:
    assert equipment_id_problem(equipment_id) is None


@pytest.mark.parametrize("equipment_id", ["", "X" * 33, "a", "_A", "0A", "A-B", "A B", "Ä", "A\n"])
def test_wrong_equipment_ids(equipment_id: str) -> None:
    assert equipment_id_problem(equipment_id) is not None


@pytest.mark.parametrize("name", ["Cortex Q3 Pilot", "PROJ-0042", "a", "x" * 255, "Dr. O'Neil (2)", "{{ok}}"])
def test_safe_project_names(name: str) -> None:
    assert project_name_problem(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x" * 256,
        " a",
        "a ",
        "a.",
        "a/b",
        "a\\b",
        "a:b",
        "a?",
        "<a>",
        "a|b",
        "a*",
        'a"',
        "é",
        "a\tb",
        "CON",
        "nul.txt",
        "com1",
    ],
)
def test_unsafe_project_names(name: str) -> None:
    assert project_name_problem(name) is not None


def test_a_leaf_is_named_by_the_utc_minute() -> None:
    summer = datetime(2026, 4, 17, 16, 32, 59, tzinfo=timezone(timedelta(hours=2)))
    assert run_leaf(RunKind.EXPERIMENTAL, summer) == "Run_2026-04-17T14-32"
    assert run_leaf(RunKind.TEST, datetime(2026, 4, 17, 14, 32, tzinfo=UTC)) == "TestRun_2026-04-17T14-32"
    with pytest.raises(ValueError, match="time zone"):
        run_leaf(RunKind.TEST, datetime(2026, 4, 17, 14, 32))  # noqa: DTZ001


def test_resolving_stays_inside(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "inside").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (root / "to_inside").symlink_to("inside")
    (root / "to_outside").symlink_to("../outside")
    (root / "to_absolute").symlink_to(tmp_path / "outside")
    assert resolve_inside(root, "inside/not/yet") == root / "inside" / "not" / "yet"
    assert resolve_inside(root, "to_inside/x") == root / "inside" / "x"
    for leaving in ("../outside", "inside/../../outside", "/etc/passwd", "to_outside", "to_absolute/x", "", "a\0b"):
        with pytest.raises(PathOutsideRootError):
            resolve_inside(root, leaving)


def test_a_root_that_is_a_symlink_is_its_target(tmp_path: Path) -> None:
    (tmp_path / "real" / "run").mkdir(parents=True)
    (tmp_path / "root").symlink_to("real")
    assert resolve_inside(tmp_path / "root", "run") == tmp_path / "real" / "run"


def test_a_sibling_that_begins_like_the_root_is_outside(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root2").mkdir()
    (tmp_path / "root" / "link").symlink_to("../root2")
    with pytest.raises(PathOutsideRootError):
        resolve_inside(tmp_path / "root", "link")
