"""Client channels to Labferry's services: with a token in each call, limits and keepalive."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from grpc.aio import Channel, ClientCallDetails, UnaryStreamClientInterceptor, UnaryUnaryClientInterceptor

_OPTIONS = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # A new channel tries at once, whatever an earlier one to the same address has just met.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


def read_token(path: Path) -> str:
    """A token from its file. OSError when it can't be read."""
    return path.read_text(encoding="ascii").strip()


def _with_token(details: ClientCallDetails, token: str) -> ClientCallDetails:
    metadata = grpc.aio.Metadata(*(details.metadata or ()))
    metadata.add("authorization", f"Bearer {token}")
    return ClientCallDetails(details.method, details.timeout, metadata, details.credentials, details.wait_for_ready)


class _UnaryToken(UnaryUnaryClientInterceptor):  # type: ignore[type-arg]
    def __init__(self, token: Callable[[], str]) -> None:
        self._token = token

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(_with_token(client_call_details, self._token()), request)


class _StreamToken(UnaryStreamClientInterceptor):  # type: ignore[type-arg]
    def __init__(self, token: Callable[[], str]) -> None:
        self._token = token

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(_with_token(client_call_details, self._token()), request)


def open_channel(address: str, token: Callable[[], str]) -> Channel:
    """A plaintext channel on loopback or a Unix socket ("unix:/path"). `token` is asked at each call."""
    interceptors: list[Any] = [_UnaryToken(token), _StreamToken(token)]
    return grpc.aio.insecure_channel(address, options=list(_OPTIONS), interceptors=interceptors)
