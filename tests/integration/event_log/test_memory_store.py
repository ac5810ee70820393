from collections.abc import Callable

import pytest

from libs.event_log.memory_store import MemoryEventStore
from tests.integration.event_log.conformance import EventStoreConformance


class TestMemoryStore(EventStoreConformance):
    @pytest.fixture
    def store(self, clock: Callable[[], int]) -> MemoryEventStore:
        return MemoryEventStore(service="conformance", version="0.0.0", clock=clock)
