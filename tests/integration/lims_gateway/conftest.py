from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.lims_gateway.running_lims import Site, running_site


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """Everything up, the password stored, nothing asked yet."""
    async with running_site() as site:
        yield site
