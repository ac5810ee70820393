from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.sync_engine.running_engine import Engine, Site, new_site, running_engine


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """A workstation with one instrument and its NAS; nothing runs yet."""
    async with new_site() as site:
        site.equip()
        yield site


@pytest.fixture
async def engine(site: Site) -> AsyncIterator[Engine]:
    async with running_engine(site) as engine:
        yield engine
