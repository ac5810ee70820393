"""Fixtures that tests of several folders share."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.integration.event_log.postgres_cluster import PostgresCluster, running_cluster

# A busy machine is no defect: time decides no test.
settings.register_profile("labferry", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("labferry")

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[PostgresCluster]:
    """One server for all tests of this process."""
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
async def postgres_database(postgres_cluster: PostgresCluster) -> AsyncIterator[str]:
    """The name of an empty database of the test's own."""
    name = f"test_{next(_numbers)}"
    await postgres_cluster.execute("postgres", f"CREATE DATABASE {name} STRATEGY = FILE_COPY")
    yield name
    await postgres_cluster.execute("postgres", f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgres_url(postgres_cluster: PostgresCluster, postgres_database: str) -> str:
    """The address of an empty database of the test's own, with all rights."""
    return postgres_cluster.url(postgres_database)
