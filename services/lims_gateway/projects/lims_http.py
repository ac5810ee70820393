"""HTTP towards a LIMS: one bounded request at a time, and every way to fail in one plain sentence."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from libs.service_kit.lims_settings import base_of
from services.lims_gateway.projects.errors import LimsUnreachableError

TIMEOUT_SECONDS = 15.0
_MAX_BODY_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    status: int
    body: bytes


class LimsHttp:
    """Sends nothing but GET, and the POST of a login. Every method raises LimsUnreachableError.

    `tls`: what server certificates are checked against. `timeout_seconds` bounds each request as a whole, so that a
    body that trickles in doesn't take for ever. httpx.InvalidURL for an endpoint that is no address.
    """

    def __init__(self, endpoint: str, tls: ssl.SSLContext, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self.endpoint = endpoint
        self._timeout = timeout_seconds
        self._http = httpx.AsyncClient(
            base_url=base_of(endpoint), timeout=timeout_seconds, verify=tls, follow_redirects=False, trust_env=False
        )

    async def close(self) -> None:
        await self._http.aclose()

    def forget_session(self) -> None:
        """Drops the cookies."""
        self._http.cookies.clear()

    async def get(
        self, path: str, parameters: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> HttpAnswer:
        return await self._send("GET", path, parameters=parameters, headers=headers)

    async def log_in(self, path: str, fields: Mapping[str, str]) -> HttpAnswer:
        """Posts the fields of a login."""
        return await self._send("POST", path, json=fields)

    def expect_ok(self, answer: HttpAnswer) -> HttpAnswer:
        """LimsUnreachableError unless the status is exactly 200."""
        if answer.status != 200:
            raise self.unreachable(f"it answers with HTTP {answer.status}")
        return answer

    def unreachable(self, problem: str) -> LimsUnreachableError:
        return LimsUnreachableError(self.endpoint, problem)

    async def _send(
        self,
        method: str,
        path: str,
        *,
        parameters: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        json: Mapping[str, str] | None = None,
    ) -> HttpAnswer:
        sent = {"accept": "application/json", **(headers or {})}
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._http.stream(method, path, params=parameters, json=json, headers=sent) as response,
            ):
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > _MAX_BODY_BYTES:
                        raise self.unreachable(f"its answer exceeds {_MAX_BODY_BYTES >> 20} MiB")
                return HttpAnswer(response.status_code, bytes(body))
        except TimeoutError as error:
            raise self.unreachable(f"no answer after {self._timeout:g} seconds") from error
        except httpx.HTTPError as error:
            # No cause: a request in the chain holds what was sent, and that may be a password or a key.
            raise self.unreachable(_problem(error)) from None


def _problem(error: httpx.HTTPError) -> str:
    match error:
        case httpx.TimeoutException():
            return "it does not answer in time"
        case httpx.ConnectError():
            return f"no connection ({error})" if str(error) else "no connection"
        case httpx.DecodingError():
            return "its answer can't be decoded"
        case _:
            return "the connection broke"
