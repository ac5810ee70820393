from collections.abc import AsyncIterator, Callable

import pytest

from libs.event_log.postgres_leases import PostgresLeases
from libs.event_log.postgres_store import PostgresEventStore
from tests.integration.event_log.conformance import EventStoreConformance
from tests.integration.event_log.lease_conformance import LeasesConformance


class TestPostgresStore(EventStoreConformance):
    @pytest.fixture
    async def store(self, postgres_url: str, clock: Callable[[], int]) -> AsyncIterator[PostgresEventStore]:
        opened = await PostgresEventStore.open(postgres_url, service="conformance", version="0.0.0", clock=clock)
        yield opened
        await opened.close()


class TestPostgresLeases(LeasesConformance):
    @pytest.fixture
    async def leases(self, postgres_url: str) -> AsyncIterator[PostgresLeases]:
        opened = await PostgresEventStore.open(postgres_url, service="conformance", version="0.0.0")
        yield opened.leases
        await opened.close()
