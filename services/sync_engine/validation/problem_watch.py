"""WatchProblems: follows the findings of a scope, each as it comes and goes."""

from __future__ import annotations

import asyncio
import base64
import binascii
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum

from libs.service_kit.errors import FieldViolation, InvalidRequestError, LabferryError, UnavailableError
from libs.service_kit.telemetry import Logger
from services.sync_engine.validation.finding import Finding
from services.sync_engine.validation.problems import Scope

LOOK_SECONDS = 10.0
"""Folders tell nobody of a change: they are looked at this often while somebody watches."""

_GATHER_SECONDS = 0.5
_LINGER_SECONDS = 120.0
_MOST_KEPT = 10_000


class ChangeKind(Enum):
    ADDED = "added"
    REMOVED = "removed"
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class ProblemChange:
    """One finding that came or went; `token` continues behind it. RESET, without a finding: what the watcher knew is to
    be forgotten, and everything that is there follows."""

    kind: ChangeKind
    finding: Finding | None
    token: str


@dataclass(frozen=True, slots=True)
class _Change:
    number: int
    kind: ChangeKind
    finding: Finding


@dataclass(slots=True)
class _Followed:
    """One scope that somebody watches: what is there now, and the changes that led to it, numbered."""

    origin: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    present: dict[Finding, None] = field(default_factory=dict)
    changes: list[_Change] = field(default_factory=list)
    last: int = 0
    watchers: int = 0
    moved: asyncio.Condition = field(default_factory=asyncio.Condition)
    failure: LabferryError | None = None
    task: asyncio.Task[None] | None = None

    def take(self, found: Mapping[Finding, None]) -> bool:
        """Whether anything changed."""
        before = self.last
        for finding in [f for f in self.present if f not in found]:
            self._note(ChangeKind.REMOVED, finding)
        for finding in [f for f in found if f not in self.present]:
            self._note(ChangeKind.ADDED, finding)
        self.present = dict(found)
        del self.changes[:-_MOST_KEPT]
        return self.last != before

    def _note(self, kind: ChangeKind, finding: Finding) -> None:
        self.last += 1
        self.changes.append(_Change(self.last, kind, finding))

    def since(self, number: int) -> list[_Change] | None:
        """None when not all of them are kept any more."""
        if number > self.last or (self.changes and number + 1 < self.changes[0].number):
            return None
        if not self.changes and number < self.last:
            return None
        return [change for change in self.changes if change.number > number]


class ProblemWatch:
    """Serves any number of watchers; one look serves all of a scope. `news` wakes it between two looks."""

    def __init__(
        self,
        query: Callable[[Scope], Awaitable[list[Finding]]],
        as_labferry_error: Callable[[Exception], LabferryError | None],
        draining: asyncio.Event,
        logger: Logger,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._query = query
        self._as_labferry_error = as_labferry_error
        self._draining = draining
        self._logger = logger
        self._look_seconds = look_seconds
        self._followed: dict[Scope, _Followed] = {}
        self._news = asyncio.Event()

    def news(self) -> None:
        """Something happened that findings may follow from."""
        self._news.set()

    async def close(self) -> None:
        tasks = [f.task for f in self._followed.values() if f.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def follow(self, scope: Scope, token: str) -> AsyncGenerator[ProblemChange, None]:
        """First what changed since the token, or everything; then each change. Ends with UnavailableError when the
        service drains, and with the error of a scope that isn't there."""
        origin, number = _parts_of(token) if token else ("", 0)
        followed = await self._begin(scope)
        followed.watchers += 1
        try:
            at, pending = number, followed.since(number) if origin == followed.origin else None
            if pending is None:
                at, pending = followed.last, []
                if token:
                    yield ProblemChange(ChangeKind.RESET, None, _token(followed, 0))
                present = list(followed.present)
                for place, finding in enumerate(present, start=1):
                    # Whoever is cut off in the middle of the list has to begin it anew.
                    yield ProblemChange(ChangeKind.ADDED, finding, _token(followed, at if place == len(present) else 0))
            while True:
                for change in pending:
                    at = change.number
                    yield ProblemChange(change.kind, change.finding, _token(followed, at))
                await self._wait_beyond(followed, at)
                later = followed.since(at)
                if later is None:
                    raise UnavailableError("more changed than is kept for a slow watcher; begin anew")
                pending = later
        finally:
            followed.watchers -= 1
            # Somebody who was cut off soon comes back for what changed meanwhile.
            asyncio.get_running_loop().call_later(_LINGER_SECONDS, self._end_unless_watched, scope, followed)

    async def _wait_beyond(self, followed: _Followed, number: int) -> None:
        draining = asyncio.create_task(self._draining.wait())
        moved = asyncio.create_task(self._moved(followed, number))
        try:
            await asyncio.wait({draining, moved}, return_when=asyncio.FIRST_COMPLETED)
            if draining.done():
                raise UnavailableError("the service is ending; resume with the last resume_token")
            await moved
        finally:
            for task in (draining, moved):
                task.cancel()
            await asyncio.wait({draining, moved})

    async def _moved(self, followed: _Followed, number: int) -> None:
        async with followed.moved:
            await followed.moved.wait_for(lambda: followed.last > number or followed.failure is not None)
        if followed.failure is not None:
            raise followed.failure

    async def _begin(self, scope: Scope) -> _Followed:
        followed = self._followed.get(scope)
        if followed is None:
            # Asked first, so that a scope that isn't there is an answer to the one who asked for it.
            found = await self._query(scope)
            followed = self._followed.get(scope)
        if followed is None:
            followed = self._followed[scope] = _Followed()
            followed.take(dict.fromkeys(found))
            followed.task = asyncio.create_task(self._look_again(scope, followed), name="problem watch")
        return followed

    def _end_unless_watched(self, scope: Scope, followed: _Followed) -> None:
        if not followed.watchers and self._followed.get(scope) is followed:
            del self._followed[scope]
            if followed.task is not None:
                followed.task.cancel()

    async def _look_again(self, scope: Scope, followed: _Followed) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._look_seconds):
                    await self._news.wait()
            # What belongs together comes close together; one look serves it all.
            await asyncio.sleep(_GATHER_SECONDS)
            self._news.clear()
            try:
                changed = followed.take(dict.fromkeys(await self._query(scope)))
            except Exception as error:
                failure = self._as_labferry_error(error)
                if failure is None:
                    self._logger.error("problem_watch_failed", exc_info=error)
                    raise
                followed.failure, changed = failure, True
            if changed:
                async with followed.moved:
                    followed.moved.notify_all()
            if followed.failure is not None:
                self._followed.pop(scope, None)
                return


def _token(followed: _Followed, number: int) -> str:
    # Numbers begin anew with each following of a scope: a token of another one says nothing.
    return base64.urlsafe_b64encode(f"{followed.origin}:{number}".encode()).decode()


def _parts_of(token: str) -> tuple[str, int]:
    """InvalidRequestError for a token that was never given out."""
    try:
        origin, _, digits = base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode().partition(":")
        return origin, int(digits)
    except (binascii.Error, ValueError) as error:
        violation = FieldViolation("resume_token", "was not given out by this service")
        raise InvalidRequestError(violation) from error
