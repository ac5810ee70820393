"""WatchProjects: what is known of the projects, then each change that the gateway's log tells of."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass

from labferry.events.v1 import lims_events_pb2 as facts
from libs.event_log.event import RecordedEvent
from libs.event_log.store import EventStore
from libs.event_log.subscription import EventsStep, Subscription
from libs.service_kit.errors import FieldViolation, InvalidRequestError, UnavailableError
from services.lims_gateway.events import EVENT_TYPES, PROJECT_EVENT_NAMES
from services.lims_gateway.projects.directory import Directory
from services.lims_gateway.projects.history import ProjectHistory
from services.lims_gateway.projects.known_projects import Change


@dataclass(frozen=True, slots=True)
class InStep:
    """What was told so far of this LIMS is what it listed at one moment: `read_ns`, nanoseconds since the epoch.

    None: it was never read, so that nothing is known of it.
    """

    endpoint: str
    read_ns: int | None


Told = Change | InStep


@dataclass(frozen=True, slots=True)
class WatchStep:
    """What happened. `token` continues behind it; empty while the beginning isn't complete."""

    told: Told
    token: str


class ProjectWatch:
    """Serves any number of watchers: each reads the log at its own pace, and costs nothing but its place in it."""

    def __init__(self, store: EventStore, history: ProjectHistory, draining: asyncio.Event) -> None:
        self._store = store
        self._history = history
        self._draining = draining

    async def follow(self, directories: Sequence[Directory], token: str) -> AsyncGenerator[WatchStep, None]:
        """First what is known, or with a token what changed since; then each change. Ends with UnavailableError when
        the service drains. InvalidRequestError for what is no token, the log's own errors for one of another log."""
        wanted = {directory.base for directory in directories}
        after = self._history.position
        store_id, position = _parts_of(token) if token else (self._store.store_id, after)
        subscription = Subscription(
            self._store, store_id=store_id, after=position, types=PROJECT_EVENT_NAMES, checkpoint_seconds=3600
        )
        with ExitStack() as following:
            for directory in directories:
                following.enter_context(directory.followed())
            for step in self._since(directories, token) if token else self._beginning(directories, after):
                yield step
            async with aclosing(subscription.steps(self._draining)) as steps:
                async for events in steps:
                    if not isinstance(events, EventsStep):
                        continue
                    for event in events.events:
                        told = _told(event)
                        if told is not None and told.endpoint in wanted:
                            yield WatchStep(told, self._token(event.position))
        raise UnavailableError(
            "the service is ending; resume with the last resume_token", metadata={"dependency": "lims_gateway"}
        )

    def _beginning(self, directories: Sequence[Directory], position: int) -> Iterator[WatchStep]:
        # Taken at one moment, since the log may go on while somebody reads slowly.
        known = [
            (d.base, list(self._history.known.of(d.base).values()), self._history.known.read_ns(d.base))
            for d in directories
        ]
        for number, (endpoint, projects, read_ns) in enumerate(known, start=1):
            for project in projects:
                yield WatchStep(facts.LimsProjectAdded(endpoint=endpoint, project=project), "")
            complete = number == len(known)
            yield WatchStep(InStep(endpoint, read_ns), self._token(position) if complete else "")

    def _since(self, directories: Sequence[Directory], token: str) -> Iterator[WatchStep]:
        """A LIMS that was configured since the token was given out, and couldn't be read yet, would never be told."""
        unread = [d.base for d in directories if self._history.known.read_ns(d.base) is None]
        return (WatchStep(InStep(endpoint, None), token) for endpoint in unread)

    def _token(self, position: int) -> str:
        return base64.urlsafe_b64encode(f"{self._store.store_id}:{position}".encode()).decode()


def _told(event: RecordedEvent) -> Told | None:
    """None for an event that tells nothing of a LIMS."""
    fact = EVENT_TYPES.decode(event)
    match fact:
        case facts.LimsProjectAdded() | facts.LimsProjectChanged() | facts.LimsProjectRemoved():
            return fact
        case facts.LimsProjectsRead():
            return InStep(fact.endpoint, event.recorded_ns)
        case _:
            return None


def _parts_of(token: str) -> tuple[str, int]:
    """InvalidRequestError for a token that was never given out."""
    try:
        store_id, _, digits = base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode().rpartition(":")
        return store_id, int(digits)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequestError(FieldViolation("resume_token", "was not given out by this service")) from error
