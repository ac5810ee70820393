from __future__ import annotations

import asyncio

from libs.service_kit.loop_turn import LookedThisTurn


async def test_what_was_noted_is_forgotten_in_the_next_turn() -> None:
    looked = LookedThisTurn()
    assert not looked
    looked.note()
    assert looked
    await asyncio.sleep(0)
    assert not looked


def test_outside_of_a_loop_everything_is_looked_at_each_time() -> None:
    looked = LookedThisTurn()
    looked.note()
    assert not looked
