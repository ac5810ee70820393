"""A channel whose calls prove themselves by the certificate that is valid now: a renewed one is taken up by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from grpc.aio import Channel

_LAST_CALLS_SECONDS = 3600.0
"""Calls that were begun with the earlier certificate may end; a stream that takes longer is cut off, and its reader
resumes."""


class RenewedChannel(Channel):
    """Opens a new connection when `renewed` says that the certificate is another. Any method may be called as on the
    channels that it opens."""

    def __init__(self, open_now: Callable[[], Channel], is_renewed: Callable[[], bool]) -> None:
        self._open_now = open_now
        self._is_renewed = is_renewed
        self._present = open_now()
        self._ending: set[asyncio.Task[None]] = set()

    def _current(self) -> Channel:
        if self._is_renewed():
            earlier, self._present = self._present, self._open_now()
            task = asyncio.create_task(earlier.close(_LAST_CALLS_SECONDS), name="earlier channel")
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
        return self._present

    def _calling(self, kind: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        def call(*given: Any, **more: Any) -> Any:
            return getattr(self._current(), kind)(*arguments, **options)(*given, **more)

        return call

    def unary_unary(self, *arguments: Any, **options: Any) -> Any:
        return self._calling("unary_unary", arguments, options)

    def unary_stream(self, *arguments: Any, **options: Any) -> Any:
        return self._calling("unary_stream", arguments, options)

    def stream_unary(self, *arguments: Any, **options: Any) -> Any:
        return self._calling("stream_unary", arguments, options)

    def stream_stream(self, *arguments: Any, **options: Any) -> Any:
        return self._calling("stream_stream", arguments, options)

    async def close(self, grace: float | None = None) -> None:
        for task in self._ending:
            task.cancel()
        await asyncio.gather(*self._ending, return_exceptions=True)
        await self._present.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._present.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._present.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._present.channel_ready()

    async def __aenter__(self) -> RenewedChannel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
