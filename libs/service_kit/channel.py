"""Client channels to Labferry's services: with a token in each call, limits and keepalive."""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from grpc.aio import Channel, ClientCallDetails, UnaryStreamClientInterceptor, UnaryUnaryClientInterceptor

from libs.service_kit.renewed_channel import RenewedChannel
from libs.service_kit.tls_settings import TlsSettings
from libs.service_kit.transport_security import TlsFilesWatch, ca_credentials, certificate_credentials

# What a header may hold, without spaces.
_TOKEN = re.compile(rb"[\x21-\x7e]+")
_LOGGER = logging.getLogger(__name__)
_OPTIONS = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # A new channel tries at once, whatever an earlier one to the same address has just met.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


def read_token(path: Path) -> str:
    """A token from its file. OSError when it can't be read, or holds something else than one word."""
    token = path.read_bytes().strip()
    if _TOKEN.fullmatch(token) is None:
        raise OSError(errno.EINVAL, "it doesn't hold one token", str(path))
    return token.decode("ascii")


class TokenFile:
    """A service's own token: a rotated one is taken up with the next call. OSError when it can't be read at first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._token = ""
        self._signature: tuple[int, int] | None = None
        self()

    def __call__(self) -> str:
        try:
            status = self._path.stat()
            signature = (status.st_ino, status.st_mtime_ns)
            if signature != self._signature:
                self._token, self._signature = read_token(self._path), signature
        except OSError:
            # A token that was read before still proves who calls, as far as anybody here knows.
            if not self._token:
                raise
        return self._token


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


def open_channel(address: str, token: Callable[[], str] | None, tls: TlsSettings | None = None) -> Channel:
    """A channel that proves who calls by `token`, asked at each call; None: by its certificate alone.

    With `tls` every TCP address is called in TLS, and a Unix socket ("unix:/path") as ever. TlsFilesError.
    """
    interceptors: list[Any] = [] if token is None else [_UnaryToken(token), _StreamToken(token)]
    options = list(_OPTIONS)
    if tls is None or address.startswith("unix:"):
        return grpc.aio.insecure_channel(address, options=options, interceptors=interceptors)

    def opened(credentials: grpc.ChannelCredentials) -> Channel:
        return grpc.aio.secure_channel(address, credentials, options=options, interceptors=interceptors)

    if tls.client_ca is None:
        return opened(ca_credentials(tls))
    watch = TlsFilesWatch(tls, _TlsProblemLog())
    return RenewedChannel(lambda: opened(certificate_credentials(watch.present)), lambda: watch.renewed() is not None)


class _TlsProblemLog:
    """Files that were renewed and can't be taken up: said once, though looked at with each call."""

    def __init__(self) -> None:
        self._said = ""

    def __call__(self, problem: str) -> None:
        if problem != self._said:
            self._said = problem
            # By the standard library's logger, since those who call from a terminal have no other.
            _LOGGER.warning("the earlier certificate counts: %s", problem)
