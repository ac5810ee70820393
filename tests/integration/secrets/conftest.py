from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.secrets.running_service import Lab, RunningService, new_lab, running


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    """A state folder with a passphrase file; nothing runs yet."""
    async with new_lab() as lab:
        lab.write_passphrase()
        yield lab


@pytest.fixture
async def secrets(lab: Lab) -> AsyncIterator[RunningService]:
    """The secrets service, made and unsealed from the passphrase file."""
    async with running(lab, "secrets") as service:
        yield service
