"""A process that is killed between replay and swap of its read models finds them whole at its next start."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from libs.event_log.projection import ProjectionRunner
from libs.event_log.sqlite_store import SqliteEventStore
from tests.faults.event_log.rebuilding import EVENTS, Moment
from tests.integration.event_log.counting import Notes, SumPerStream, notes, sums
from tests.integration.event_log.events import EVENT_TYPES, counted, to


@pytest.mark.parametrize("moment", Moment)
async def test_the_next_start_has_everything(tmp_path: Path, moment: Moment) -> None:
    command = [sys.executable, "-m", "tests.faults.event_log.rebuilding", str(tmp_path), moment]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    database = tmp_path / "read_models.sqlite3"
    assert database.exists() == (moment is not Moment.OLD_FILE_GONE)
    store = await SqliteEventStore.open(tmp_path / "events.sqlite3", service="test", version="0.0.0")
    runner = ProjectionRunner(store, EVENT_TYPES, database, (SumPerStream(), Notes()))
    await runner.start()
    try:
        assert not list(tmp_path.glob("*.rebuild*"))
        assert await runner.query(sums) == {"a": EVENTS}
        assert await runner.query(notes) == [str(number) for number in range(EVENTS)]
        await store.append([to("a", counted(1))])
        assert await runner.query(sums) == {"a": EVENTS + 1}
        assert [report.differences for report in await runner.rebuild(dry_run=False)] == [0, 0]
    finally:
        await runner.close()
        await store.close()
