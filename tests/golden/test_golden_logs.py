"""Every event type and version that was ever released is read today as it was read then."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from libs.event_log.event import EventTypes
from tests.golden.golden_log import (
    LOGS,
    SERVICES,
    GoldenLog,
    GoldenLogError,
    differences,
    golden_logs,
    write_missing,
)
from tests.golden.scenario import GoldenService

EVERY_LOG = [golden for service in SERVICES for golden in golden_logs(service)]


@pytest.mark.parametrize("golden", EVERY_LOG, ids=lambda g: f"{g.service.name}/{g.folder.name}")
async def test_states_and_payloads_are_what_they_were(golden: GoldenLog, tmp_path: Path) -> None:
    assert differences(golden.expected, await golden.replay(tmp_path)) == []


@pytest.mark.parametrize("service", SERVICES, ids=lambda s: s.name)
def test_every_registered_type_and_version_has_a_sample(service: GoldenService) -> None:
    sampled = {event["type"] for golden in golden_logs(service) for event in golden.expected["events"]}
    missing = set(service.event_types.names) - sampled
    assert not missing, f"add a scenario with {sorted(missing)} to tests/golden/scenarios, then python -m tests.golden"


@pytest.mark.parametrize("service", SERVICES, ids=lambda s: s.name)
def test_every_scenario_has_its_log_and_every_log_its_scenario(service: GoldenService) -> None:
    assert [g.folder.name for g in golden_logs(service)] == sorted(s.name for s in service.scenarios)


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    return Path(shutil.copytree(LOGS, tmp_path / "logs"))


def _in_database(statement: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with closing(sqlite3.connect(folder / "events.sqlite3")) as log:
            log.execute("DROP TRIGGER events_refuse_update")
            log.execute("DROP TRIGGER events_refuse_delete")
            log.execute(statement)
            log.commit()

    return change


@pytest.mark.parametrize(
    "change",
    [
        _in_database("UPDATE events SET payload = x'0a' WHERE position = 3"),
        _in_database("UPDATE events SET recorded_ns = recorded_ns + 1 WHERE position = 3"),
        _in_database("DELETE FROM events WHERE position = (SELECT max(position) FROM events)"),
    ],
)
async def test_a_changed_log_is_noticed(copies: Path, tmp_path: Path, change: Callable[[Path], None]) -> None:
    golden = golden_logs(SERVICES[0], copies)[0]
    change(golden.folder)
    with pytest.raises(GoldenLogError):
        await golden.replay(tmp_path)


async def test_a_payload_that_is_read_otherwise_is_noticed(tmp_path: Path) -> None:
    golden = EVERY_LOG[0]
    expected = golden.expected
    queued = next(event for event in expected["events"] if event["type"] == "sync.job.queued.v1")
    queued["payload"]["priority"] = 6
    queued["state"]["run"] = "another"
    found = differences(expected, await golden.replay(tmp_path))
    assert len(found) == 2
    assert all("was" in line for line in found)


async def test_a_type_that_is_registered_no_more_is_noticed(tmp_path: Path) -> None:
    service = SERVICES[0]
    fewer = EventTypes(
        known
        for name in service.event_types.names
        if name != "sync.job.sealed.v1" and (known := service.event_types.get(name)) is not None
    )
    with pytest.raises(GoldenLogError, match=r"sync\.job\.sealed\.v1"):
        await GoldenLog(
            GoldenService(service.name, fewer, (), service.state_after, service.read_models), EVERY_LOG[0].folder
        ).replay(tmp_path)


async def test_adding_leaves_what_is_there(copies: Path, tmp_path: Path) -> None:
    removed, kept = copies / "secrets" / "first-release", copies / "sync_engine" / "first-release"
    shutil.rmtree(removed)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in kept.iterdir()}
    (tmp_path / "scratch").mkdir()
    assert await write_missing(tmp_path / "scratch", copies) == [removed]
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in kept.iterdir()} == before
    assert sorted(path.name for path in removed.iterdir()) == ["events.sqlite3", "expected.json"]
