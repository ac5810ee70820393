from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.e2e.terminal import Operator
from tests.integration.secrets.running_service import running
from tests.integration.sync_engine.running_engine import new_site


@pytest.fixture
async def operator() -> AsyncIterator[Operator]:
    """A workstation with the engine and the secrets service running."""
    async with new_site() as site:
        site.equip()
        site.lab.write_passphrase()
        site.lab.settings["secrets"]["passphrase_file"] = str(site.lab.passphrase_file)
        async with running(site.lab, "secrets"), running(site.lab, "sync_engine"):
            yield Operator(site)
