from __future__ import annotations

import pytest

from libs.event_log.local_leases import LocalLeases
from libs.event_log.store import LeaseLostError
from tests.integration.event_log.lease_conformance import LeasesConformance


class TestLocalLeases(LeasesConformance):
    @pytest.fixture
    def leases(self) -> LocalLeases:
        return LocalLeases()


async def test_nobody_takes_over_during_a_fenced_append() -> None:
    now = 0.0
    leases = LocalLeases(lambda: now)
    lease = await leases.acquire("work", "one", 5)
    assert lease is not None
    with leases.fenced(lease.fence):
        now = 6.0
        assert await leases.acquire("work", "two", 5) is None
    assert await leases.acquire("work", "two", 5) is not None
    with pytest.raises(LeaseLostError), leases.fenced(lease.fence):
        raise AssertionError("the append of a lost lease")
