"""A LIMS of the REST contract (SPEC §6): cookie sessions, one re-login, and nothing but GET and the login POST."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

import msgspec

from services.lims_gateway.projects.errors import LimsLoginRefusedError
from services.lims_gateway.projects.lims_http import HttpAnswer, LimsHttp
from services.lims_gateway.projects.passwords import LimsPasswords, NoPasswordStoredError
from services.lims_gateway.projects.project import NotAProjectListError, Project, ProjectRows
from services.lims_gateway.projects.rest_rows import decode_list, decode_row, decode_user
from services.lims_gateway.projects.single_flight import SingleFlight
from services.lims_gateway.projects.upstream import LimsUser

_API = "/api/v1"
_TRY_AGAIN = frozenset({408, 425, 429})


class RestLims:
    """An `Upstream`. The password is fetched at each login and kept nowhere."""

    def __init__(self, http: LimsHttp, email: str, passwords: LimsPasswords) -> None:
        self._http = http
        self._email = email
        self._passwords = passwords
        self._logins = 0
        self._log_in = SingleFlight(self._login)

    async def close(self) -> None:
        await self._log_in.close()
        await self._http.close()

    async def projects(self) -> ProjectRows:
        answer = self._http.expect_ok(await self._get(f"{_API}/projects"))
        try:
            return await asyncio.to_thread(decode_list, answer.body)
        except NotAProjectListError as error:
            raise self._http.unreachable("it answers with something that is no project list") from error

    async def project(self, id_: str) -> Project | None:
        answer = await self._get(f"{_API}/projects/{quote(id_, safe='')}")
        if answer.status == 404:
            return None
        project = decode_row(self._http.expect_ok(answer).body)
        if project is None:
            raise self._http.unreachable("it answers with something that is no project")
        return project

    async def current_user(self) -> LimsUser:
        user = decode_user(self._http.expect_ok(await self._get(f"{_API}/me")).body)
        if user is None:
            raise self._http.unreachable("it answers with something that is no account")
        return user

    async def _get(self, path: str) -> HttpAnswer:
        if self._logins == 0:
            await self._log_in()
        logins = self._logins
        answer = await self._http.get(path)
        if answer.status != 401:
            return answer
        if logins == self._logins:
            await self._log_in()
        answer = await self._http.get(path)
        if answer.status == 401:
            raise self._refused(
                f"the LIMS at {self._http.endpoint} accepts the login of {self._email} and then refuses its session; "
                "check that the account is active"
            )
        return answer

    async def _login(self) -> None:
        try:
            password = await self._passwords.fetch()
        except NoPasswordStoredError:
            raise self._refused(
                f'no LIMS password is stored; store it under the name "{self._passwords.username}"'
            ) from None
        self._http.forget_session()
        answer = await self._http.log_in(f"{_API}/login", {"email": self._email, "password": password.reveal()})
        if 400 <= answer.status < 500 and answer.status not in _TRY_AGAIN:
            raise self._refused(
                f"the LIMS at {self._http.endpoint} refuses the login of {self._email} (HTTP {answer.status}); "
                "check lims.endpoint, lims.email and the stored password"
            )
        if not _is_json_object(self._http.expect_ok(answer).body):
            raise self._http.unreachable("it answers a login with something that is not its JSON")
        self._logins += 1

    def _refused(self, problem: str) -> LimsLoginRefusedError:
        return LimsLoginRefusedError(self._http.endpoint, self._email, problem)


def _is_json_object(body: bytes) -> bool:
    try:
        msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
