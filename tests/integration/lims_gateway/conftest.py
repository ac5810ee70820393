"""One LIMS and one secrets service serve every test of a worker; the gateway is made anew where a test needs that."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.integration.lims_gateway.running_lims import Site, running_site


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_site() -> AsyncIterator[Site]:
    async with running_site() as site:
        yield site


@pytest_asyncio.fixture(loop_scope="session")
async def site(shared_site: Site) -> AsyncIterator[Site]:
    """Everything up, and a LIMS that behaves. What the gateway knows is left from the tests before."""
    await shared_site.lims.begin_anew()
    yield shared_site


@pytest_asyncio.fixture(loop_scope="session")
async def new_site(site: Site) -> AsyncIterator[Site]:
    """As `site`, with a gateway that knows nothing yet."""
    await site.restart_gateway()
    yield site
