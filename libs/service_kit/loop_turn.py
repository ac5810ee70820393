"""Remembers for one turn of the event loop what was looked at in it, however many calls ask."""

from __future__ import annotations

import asyncio


class LookedThisTurn:
    """True from `note` to the end of the running loop's turn; `note` does nothing outside of a loop.

    A call that is served in a turn arrived before that turn, so what was seen in it is new enough for the call.
    """

    def __init__(self) -> None:
        self._noted = False

    def __bool__(self) -> bool:
        return self._noted

    def note(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        self._noted = True
        loop.call_soon(self._forget)

    def _forget(self) -> None:
        self._noted = False
