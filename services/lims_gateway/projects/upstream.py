"""The LIMS over HTTP (SPEC §6): cookie sessions, one re-login, and nothing but GET and the login POST."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from urllib.parse import quote

import httpx
import msgspec

from services.lims_gateway.projects.errors import LimsLoginRefusedError, LimsUnreachableError
from services.lims_gateway.projects.passwords import LimsPasswords, NoPasswordStoredError
from services.lims_gateway.projects.project import NotAProjectListError, Project, ProjectRows, decode_list, decode_row
from services.lims_gateway.projects.single_flight import SingleFlight

TIMEOUT_SECONDS = 15.0
_API = "/api/v1"
_MAX_BODY_BYTES = 64 << 20
_TRY_AGAIN = frozenset({408, 425, 429})


def base_of(endpoint: str) -> str:
    """The part before /api/v1: an endpoint with or without it, or with a slash at the end, is the same endpoint."""
    return endpoint.rstrip("/").removesuffix(_API).rstrip("/")


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes


class LimsUpstream:
    """One LIMS. Every method raises LimsUnreachableError, LimsLoginRefusedError or PasswordUnavailableError.

    `tls`: what server certificates are checked against. `timeout_seconds` bounds each request as a whole, so that a
    body that trickles in doesn't take for ever.
    """

    def __init__(
        self,
        endpoint: str,
        email: str,
        passwords: LimsPasswords,
        tls: ssl.SSLContext,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self._endpoint = endpoint
        self._email = email
        self._passwords = passwords
        self._timeout = timeout_seconds
        self._http = httpx.AsyncClient(
            base_url=base_of(endpoint), timeout=timeout_seconds, verify=tls, follow_redirects=False, trust_env=False
        )
        self._logins = 0
        self._log_in = SingleFlight(self._login)

    async def close(self) -> None:
        await self._log_in.close()
        await self._http.aclose()

    async def projects(self) -> ProjectRows:
        """All projects. A 200 that is no project list counts as unreachable, never as an empty list."""
        answer = await self._get(f"{_API}/projects")
        self._expect_ok(answer)
        try:
            return await asyncio.to_thread(decode_list, answer.body)
        except NotAProjectListError as error:
            raise self._unreachable("it answers with something that is no project list") from error

    async def project(self, id_: str) -> Project | None:
        """One project by uid or short id; None when the LIMS has none."""
        answer = await self._get(f"{_API}/projects/{quote(id_, safe='')}")
        if answer.status == 404:
            return None
        self._expect_ok(answer)
        project = decode_row(answer.body)
        if project is None:
            raise self._unreachable("it answers with something that is no project")
        return project

    async def check(self) -> None:
        """Returns when the LIMS knows who we are."""
        answer = await self._get(f"{_API}/me")
        self._expect_ok(answer)
        if not _is_json_object(answer.body):
            raise self._unreachable("it answers with something that is not its JSON")

    async def _get(self, path: str) -> _Answer:
        if self._logins == 0:
            await self._log_in()
        logins = self._logins
        answer = await self._send("GET", path)
        if answer.status != 401:
            return answer
        if logins == self._logins:
            await self._log_in()
        answer = await self._send("GET", path)
        if answer.status == 401:
            raise LimsLoginRefusedError(
                self._endpoint,
                self._email,
                f"the LIMS at {self._endpoint} accepts the login of {self._email} and then refuses its session; "
                "check that the account is active",
            )
        return answer

    async def _login(self) -> None:
        try:
            password = await self._passwords.fetch()
        except NoPasswordStoredError:
            raise LimsLoginRefusedError(
                self._endpoint, self._email, 'no LIMS password is stored; store it under the name "lims"'
            ) from None
        self._http.cookies.clear()
        answer = await self._send("POST", f"{_API}/login", {"email": self._email, "password": password.reveal()})
        if 400 <= answer.status < 500 and answer.status not in _TRY_AGAIN:
            raise LimsLoginRefusedError(
                self._endpoint,
                self._email,
                f"the LIMS at {self._endpoint} refuses the login of {self._email} (HTTP {answer.status}); "
                "check lims.endpoint, lims.email and the stored password",
            )
        self._expect_ok(answer)
        if not _is_json_object(answer.body):
            raise self._unreachable("it answers a login with something that is not its JSON")
        self._logins += 1

    async def _send(self, method: str, path: str, json: dict[str, str] | None = None) -> _Answer:
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._http.stream(method, path, json=json, headers={"accept": "application/json"}) as response,
            ):
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > _MAX_BODY_BYTES:
                        raise self._unreachable(f"its answer exceeds {_MAX_BODY_BYTES >> 20} MiB")
                return _Answer(response.status_code, bytes(body))
        except TimeoutError as error:
            raise self._unreachable(f"no answer after {self._timeout:g} seconds") from error
        except httpx.HTTPError as error:
            # No cause: a request in the chain holds the body that was sent, and a login's body is a password.
            raise self._unreachable(_problem(error)) from None

    def _expect_ok(self, answer: _Answer) -> None:
        if answer.status != 200:
            raise self._unreachable(f"it answers with HTTP {answer.status}")

    def _unreachable(self, problem: str) -> LimsUnreachableError:
        return LimsUnreachableError(self._endpoint, problem)


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


def _is_json_object(body: bytes) -> bool:
    try:
        msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
