"""When a staged run is all there: its signal, and the settle time on a clock that nobody can set (SPEC §8)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labferry.events.v1 import staging_events_pb2 as events
from labferry.sync.v1 import run_pb2
from libs.run_tree.run_path import RunPath
from libs.service_kit.equipment_settings import (
    CompletenessSignal,
    EquipmentSettings,
    MountedTransportSettings,
    RcloneTransportSettings,
    RsyncSshTransportSettings,
    TransportSettings,
)
from services.sync_engine.staging.clearing import is_due
from services.sync_engine.staging.completeness import (
    Arrival,
    Settling,
    Signal,
    configured_signal,
    signal_of_block,
    what_is_missing,
)
from services.sync_engine.staging.nas_path import nas_path
from services.sync_engine.staging.staged_run import StagedRun, evolve

BY_FLAG = Signal(CompletenessSignal.SENTINEL_FILE, "done.flag")
BY_LIST = Signal(CompletenessSignal.MANIFEST, "files.json")
MOUNTED = MountedTransportSettings(type="mounted", path=Path("/nas/E"))


def arrival(*names: str, manifest: bytes | None = None) -> Arrival:
    return Arrival("f", dict.fromkeys(names, 3), len(names), 3 * len(names), manifest)


def equipment(transport: TransportSettings = MOUNTED, **settings: object) -> EquipmentSettings:
    document = {"id": "E", "local_root": "/data", "transport": transport, **settings}
    return EquipmentSettings.model_validate(document)


def test_a_flag_is_given_when_it_is_there() -> None:
    assert what_is_missing(BY_FLAG, arrival("a.tif")) == "There is no done.flag."
    assert what_is_missing(BY_FLAG, arrival("a.tif", "done.flag")) == ""


def test_a_list_is_given_when_every_file_is_there() -> None:
    listed = b'{"files": [%s]}' % b", ".join(b'{"path": "%d", "size": 3}' % n for n in range(5))
    assert what_is_missing(BY_LIST, arrival("a.tif")) == "There is no files.json."
    some = what_is_missing(BY_LIST, arrival("4", manifest=listed))
    assert "Of the 5 files in files.json, 0, 1, 2 and 1 more are not there" in some
    assert what_is_missing(BY_LIST, arrival(*"01234", manifest=listed)) == ""
    assert "can't be used" in what_is_missing(BY_LIST, arrival(manifest=b"{"))


def test_without_a_signal_a_run_is_never_complete() -> None:
    assert what_is_missing(None, arrival("done.flag")) != ""


def test_the_signal_comes_from_the_configuration_or_the_run() -> None:
    assert configured_signal(equipment()) == Signal(CompletenessSignal.SENTINEL_FILE, "acquisition_complete.flag")
    listed = equipment(completeness_signal="manifest", manifest_filename="list.json")
    assert configured_signal(listed) == Signal(CompletenessSignal.MANIFEST, "list.json")
    block = {"completeness_signal": "sentinel_file", "sentinel_filename": "done.flag", "manifest_filename": "x"}
    assert signal_of_block(block) == BY_FLAG
    assert signal_of_block({**block, "completeness_signal": "manifest"}) == Signal(CompletenessSignal.MANIFEST, "x")
    for wrong in ({}, {"completeness_signal": "sentinel_file"}, {**block, "sentinel_filename": "../x"}):
        assert signal_of_block(wrong) is None


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0, 20)), min_size=1, max_size=20))
def test_a_run_is_settled_when_nothing_changed_for_the_settle_time(looks: list[tuple[int, float]]) -> None:
    settling, now, since, last, alike = Settling(30.0), 1000.0, 1000.0, -1, 0
    for content, pause in looks:
        now += pause
        settling.look(str(content), now)
        moved = alike > 0 and content != last
        if content != last:
            since, last, alike = now, content, 0
        alike += 1
        assert settling.is_settled(now) is (now - since >= 30)
        assert settling.is_stalled(now) is (alike > 1 and now - since >= 300)
        assert settling.has_moved() is moved


def test_no_jump_of_the_wall_clock_makes_a_run_due_too_early() -> None:
    verified = datetime(2026, 4, 17, tzinfo=UTC)
    record = StagedRun("E/P/Runs/Run_1")
    steps = [
        events.StagingDiscovered(run_kind=run_pb2.RUN_KIND_TEST),
        events.StagingCompleted(),
        events.StagingQueued(),
    ]
    for step in steps:
        record = evolve(record, step, verified)
    retain = timedelta(hours=24)
    assert not is_due(record, retain, verified + timedelta(days=9)), "it isn't proven"
    record = evolve(record, events.StagingVerified(), verified)
    for hours, due in ((-1, False), (0, False), (23.9, False), (24, True), (99, True)):
        assert is_due(record, retain, verified + timedelta(hours=hours)) is due


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (equipment(), "/nas/E/P/Runs/Run_1"),
        (equipment(nas_root="//nas01/lab"), "//nas01/lab/E/P/Runs/Run_1"),
        (
            equipment(RcloneTransportSettings(type="rclone", rclone_remote="s3", rclone_remote_path="lab/E")),
            "s3:lab/E/P/Runs/Run_1",
        ),
        (
            equipment(RsyncSshTransportSettings(type="rsync_ssh", ssh_target="lab@nas", remote_path="/lab/E")),
            "lab@nas:/lab/E/P/Runs/Run_1",
        ),
    ],
)
def test_the_place_at_the_storage_as_people_name_it(settings: EquipmentSettings, expected: str) -> None:
    assert nas_path(settings, RunPath("E", "P", "Runs", "Run_1")) == expected
