"""What leases must do, whichever store they belong to."""

from __future__ import annotations

import asyncio

import pytest

from libs.event_log.lease import Leases
from libs.event_log.store import LeaseLostError
from libs.service_kit.boot_clock import boot_seconds


async def until_free(leases: Leases, name: str) -> None:
    async with asyncio.timeout(30):
        while await leases.holder(name) is not None:
            await asyncio.sleep(0.01)


class LeasesConformance:
    """Subclasses define the fixture `leases`; nobody has one yet."""

    async def test_one_holder_at_a_time(self, leases: Leases) -> None:
        assert await leases.holder("work") is None
        lease = await leases.acquire("work", "one", 60)
        assert lease is not None and (lease.name, lease.holder) == ("work", "one")
        assert boot_seconds() < lease.believed_until <= boot_seconds() + 60
        assert await leases.acquire("work", "two", 60) is None
        assert await leases.acquire("other", "two", 60) is not None
        assert (await leases.holder("work"), await leases.holder("other")) == ("one", "two")

    async def test_one_of_many_gets_it(self, leases: Leases) -> None:
        asked = await asyncio.gather(*(leases.acquire("work", f"holder-{number}", 60) for number in range(10)))
        assert sum(lease is not None for lease in asked) == 1

    async def test_released_it_is_free(self, leases: Leases) -> None:
        lease = await leases.acquire("work", "one", 60)
        assert lease is not None
        await leases.release(lease)
        assert await leases.holder("work") is None
        successor = await leases.acquire("work", "two", 60)
        assert successor is not None and successor.token > lease.token
        await leases.release(lease)
        assert await leases.holder("work") == "two"
        with pytest.raises(LeaseLostError):
            await leases.renew(lease, 60)

    async def test_it_ends_by_itself(self, leases: Leases) -> None:
        lease = await leases.acquire("work", "one", 0.05)
        assert lease is not None
        await until_free(leases, "work")
        with pytest.raises(LeaseLostError):
            await leases.renew(lease, 60)
        successor = await leases.acquire("work", "two", 60)
        assert successor is not None and successor.token > lease.token

    async def test_a_renewal_sets_its_end_anew(self, leases: Leases) -> None:
        lease = await leases.acquire("work", "one", 60)
        assert lease is not None
        renewed = await leases.renew(lease, 600)
        assert (renewed.token, renewed.fence) == (lease.token, lease.fence)
        assert renewed.believed_until > lease.believed_until + 500
        assert await leases.holder("work") == "one"
        # An end that comes at once can be seen without waiting for a later one.
        shortened = await leases.renew(renewed, 0.05)
        assert shortened.believed_until < lease.believed_until
        await until_free(leases, "work")

    async def test_a_holder_that_asks_again_gets_a_new_token(self, leases: Leases) -> None:
        first = await leases.acquire("work", "one", 60)
        second = await leases.acquire("work", "one", 60)
        assert first is not None and second is not None and second.token > first.token
        with pytest.raises(LeaseLostError):
            await leases.renew(first, 60)
        await leases.release(first)
        assert await leases.holder("work") == "one"
