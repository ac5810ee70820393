from __future__ import annotations

import asyncio

import pytest

from services.lims_gateway.projects.single_flight import SingleFlight


class Work:
    def __init__(self) -> None:
        self.begun = 0
        self.may_end = asyncio.Event()

    async def __call__(self) -> int:
        self.begun += 1
        await self.may_end.wait()
        if self.begun == 2:
            raise ValueError("the second time fails")
        return self.begun


async def test_all_who_ask_meanwhile_share_one_result_and_later_ones_a_new_one() -> None:
    work = Work()
    flight = SingleFlight(work.__call__)
    asking = [asyncio.create_task(flight()) for _ in range(20)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asking[0].cancel()
    work.may_end.set()
    results = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == [1] * 19
    with pytest.raises(ValueError, match="second"):
        await flight()
    assert await flight() == 3


async def test_who_asks_anew_shares_no_work_that_began_before() -> None:
    work = Work()
    flight = SingleFlight(work.__call__)
    first = asyncio.create_task(flight())
    await asyncio.sleep(0)
    anew = [asyncio.create_task(flight.anew()) for _ in range(20)]
    await asyncio.sleep(0)
    assert work.begun == 1
    work.may_end.set()
    assert await first == 1
    assert {str(error) for error in await asyncio.gather(*anew, return_exceptions=True)} == {"the second time fails"}
    assert await flight.anew() == 3


async def test_close_ends_the_work() -> None:
    work = Work()
    flight = SingleFlight(work.__call__)
    asking = asyncio.create_task(flight())
    await asyncio.sleep(0)
    await flight.close()
    with pytest.raises(asyncio.CancelledError):
        await asking
