from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from libs.event_log.sqlite_store import SqliteEventStore
from tests.integration.event_log.conformance import EventStoreConformance


class TestSqliteStore(EventStoreConformance):
    @pytest.fixture
    async def store(self, tmp_path: Path, clock: Callable[[], int]) -> AsyncIterator[SqliteEventStore]:
        opened = await SqliteEventStore.open(
            tmp_path / "events.sqlite3", service="conformance", version="0.0.0", clock=clock
        )
        yield opened
        await opened.close()
