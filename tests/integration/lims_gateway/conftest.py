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
    """Everything up: a LIMS that behaves and knows nobody yet, and a gateway that has just read its projects."""
    await shared_site.begin_anew()
    yield shared_site


@pytest_asyncio.fixture(loop_scope="session")
async def new_site(shared_site: Site) -> AsyncIterator[Site]:
    """As `site`, with a gateway that knows nothing yet."""
    await shared_site.lims.begin_anew()
    await shared_site.restart_gateway()
    yield shared_site
