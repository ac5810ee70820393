from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.faults.hardening.whole_lab import WholeLab, whole_lab


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def lab() -> AsyncIterator[WholeLab]:
    """One lab serves every test of a worker: what a test does to it, the services must bear."""
    async with whole_lab() as lab:
        yield lab
