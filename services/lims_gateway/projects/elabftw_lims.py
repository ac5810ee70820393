"""eLabFTW as a LIMS: resources of one category are projects. REST API v2, an API key, and nothing but GET."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import msgspec

from services.lims_gateway.projects.elabftw_items import (
    SHORT_ID_PREFIX,
    decode_item,
    decode_items,
    decode_page,
    decode_user,
    id_of,
)
from services.lims_gateway.projects.errors import LimsLoginRefusedError
from services.lims_gateway.projects.lims_http import HttpAnswer, LimsHttp
from services.lims_gateway.projects.passwords import LimsPasswords, NoPasswordStoredError, Password
from services.lims_gateway.projects.project import NotAProjectListError, Project, ProjectRows, ProjectStatus
from services.lims_gateway.projects.single_flight import SingleFlight
from services.lims_gateway.projects.upstream import LimsUser

_API = "/api/v2"
_PAGE = 500
_MOST_PAGES = 1000
_TRIES = 3
# An entry that the account may not read is none of its projects.
_NOT_FOR_US = frozenset({403, 404})


class ElabftwLims:
    """An `Upstream`. A project's uid is the elabid, its short id ELAB-<number of the resource>.

    The key is fetched for each piece of work and kept no longer; a key that is refused is fetched once more, since
    somebody may just have replaced it. `category_id`: whose resources are projects.
    """

    def __init__(
        self, http: LimsHttp, category_id: int, statuses: Mapping[str, ProjectStatus], keys: LimsPasswords
    ) -> None:
        self._http = http
        self._category_id = category_id
        self._statuses = statuses
        self._keys = keys
        self._fetch_key = SingleFlight(self._key)

    async def close(self) -> None:
        await self._fetch_key.close()
        await self._http.close()

    async def projects(self) -> ProjectRows:
        for _ in range(_TRIES):
            rows = await self._all_rows()
            if rows is not None:
                return await asyncio.to_thread(decode_items, rows, self._statuses, self._category_id)
        raise self._http.unreachable("its list of resources changes faster than it can be read")

    async def project(self, id_: str) -> Project | None:
        number = id_.removeprefix(SHORT_ID_PREFIX)
        if number == id_ or not number.isascii() or not number.isdecimal():
            # Of the elabid there is only a search, which takes text and not the id alone.
            return next((p for p in (await self.projects()).projects if p.uid == id_), None)
        answer, _ = await self._get(f"{_API}/items/{number}", await self._fetch_key())
        if answer.status in _NOT_FOR_US:
            return None
        return decode_item(self._http.expect_ok(answer).body, self._statuses, self._category_id)

    async def current_user(self) -> LimsUser:
        answer, _ = await self._get(f"{_API}/users/me", await self._fetch_key())
        user = decode_user(self._expect_allowed(answer).body)
        if user is None:
            raise self._http.unreachable("it answers with something that is no account")
        return user

    async def _all_rows(self) -> Sequence[msgspec.Raw] | None:
        """None when entries went away between two pages, so that one may have slipped through.

        Each page begins with the last row of the one before, which shows that nothing moved.
        """
        key = await self._fetch_key()
        rows: list[msgspec.Raw] = []
        for _ in range(_MOST_PAGES):
            parameters = {
                "cat": str(self._category_id),
                # Everything that the account may read, archived entries too, in an order that new ones don't disturb.
                "scope": "3",
                "state": "1,2",
                "order": "id",
                "sort": "asc",
                "limit": str(_PAGE),
                "offset": str(max(0, len(rows) - 1)),
            }
            answer, key = await self._get(f"{_API}/items", key, parameters)
            try:
                found = decode_page(self._expect_allowed(answer).body)
            except NotAProjectListError as error:
                raise self._http.unreachable("it answers with something that is no list of resources") from error
            if rows and (not found or id_of(found[0]) != id_of(rows[-1])):
                return None
            fresh = found[1:] if rows else found
            # A server may give fewer a page than were asked for: only a page without news is surely the last.
            if not fresh:
                return rows
            rows += fresh
        raise self._http.unreachable(f"it lists no end of resources ({_MOST_PAGES} pages)")

    async def _get(
        self, path: str, key: Password, parameters: Mapping[str, str] | None = None
    ) -> tuple[HttpAnswer, Password]:
        """The answer, and the key that it was given for."""
        answer = await self._http.get(path, parameters, {"authorization": key.reveal()})
        if answer.status == 401:
            key = await self._fetch_key()
            answer = await self._http.get(path, parameters, {"authorization": key.reveal()})
        if answer.status == 401:
            raise self._key_refused(answer)
        return answer, key

    def _expect_allowed(self, answer: HttpAnswer) -> HttpAnswer:
        if answer.status == 403:
            raise self._key_refused(answer)
        return self._http.expect_ok(answer)

    def _key_refused(self, answer: HttpAnswer) -> LimsLoginRefusedError:
        return self._refused(
            f"eLabFTW at {self._http.endpoint} refuses the stored API key (HTTP {answer.status}); "
            f'check the key under the name "{self._keys.username}" and the rights of its account'
        )

    async def _key(self) -> Password:
        try:
            text = (await self._keys.fetch()).reveal().strip()
        except NoPasswordStoredError:
            raise self._refused(f'no API key is stored; store it under the name "{self._keys.username}"') from None
        if not text or not text.isascii() or not text.isprintable():
            # It would break the request, in an error that shows it.
            raise self._refused(f'what is stored under the name "{self._keys.username}" can\'t be an API key')
        return Password(text)

    def _refused(self, problem: str) -> LimsLoginRefusedError:
        return LimsLoginRefusedError(self._http.endpoint, "", problem)
