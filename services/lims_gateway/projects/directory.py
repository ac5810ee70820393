"""One LIMS's projects, from whichever source may answer: carries out the policy of SPEC §6."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from libs.event_log.store import LogDiskFullError, LogUnavailableError
from libs.service_kit.errors import LabferryError
from libs.service_kit.lims_settings import base_of
from libs.service_kit.telemetry import Logger
from services.lims_gateway.projects.cache import ProjectCache
from services.lims_gateway.projects.catalogue import CatalogueFile
from services.lims_gateway.projects.catalogue_format import Catalogue
from services.lims_gateway.projects.errors import (
    CacheUnusableError,
    LimsLoginRefusedError,
    LimsUnreachableError,
    PasswordUnavailableError,
    ProjectNotFoundError,
)
from services.lims_gateway.projects.history import ProjectHistory
from services.lims_gateway.projects.paging import Page, PageKey, ProjectFilter, page_of
from services.lims_gateway.projects.policy import (
    AskFailure,
    CacheState,
    Provenance,
    Source,
    as_read,
    fall_back,
    must_ask,
)
from services.lims_gateway.projects.project import Project
from services.lims_gateway.projects.single_flight import SingleFlight
from services.lims_gateway.projects.upstream import LimsUser, Upstream


@dataclass(frozen=True, slots=True)
class ProjectPage:
    page: Page
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class FoundProject:
    project: Project
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class HealthReport:
    """`reason` is empty when `ok`."""

    ok: bool
    latency_ms: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class KeptCopies:
    """What the gateway keeps of a LIMS. `catalogue` None: none is configured."""

    cache: ProjectCache
    history: ProjectHistory
    catalogue: CatalogueFile | None


@dataclass(frozen=True, slots=True)
class _Choice:
    """What answers. `catalogue` is None unless it does."""

    provenance: Provenance
    catalogue: Catalogue | None = None


class Directory:
    """Projects of one configured LIMS.

    Every method but `health` raises LimsLoginRefusedError when the LIMS doesn't let us in (a stale cache doesn't hide
    that), and LimsUnreachableError or PasswordUnavailableError when it can't be asked and nothing else may answer; the
    store's errors and CacheUnusableError when its answer can't be kept and no older one is there.
    """

    def __init__(
        self,
        endpoint: str,
        upstream: Upstream,
        copies: KeptCopies,
        time_to_live: timedelta,
        logger: Logger,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.base = base_of(endpoint)
        self._upstream = upstream
        self._cache, self._history, self._catalogue = copies.cache, copies.history, copies.catalogue
        self.ttl_ns = int(time_to_live.total_seconds() * 1e9)
        self._logger = logger
        self._clock = clock
        self._refresh_once = SingleFlight(self._refresh)
        self._followers = 0
        self._on_news: Callable[[], None] = lambda: None

    async def close(self) -> None:
        await self._refresh_once.close()
        if self._catalogue is not None:
            await self._catalogue.close()
        await self._upstream.close()

    async def list_projects(
        self, wanted: ProjectFilter, after: PageKey | None, limit: int, *, refresh: bool
    ) -> ProjectPage:
        """One page. `refresh` asks the LIMS even when the cache is fresh."""
        choice = await self._choose(refresh=refresh)
        if choice.catalogue is not None:
            return ProjectPage(page_of(choice.catalogue.rows.projects, wanted, after, limit), choice.provenance)
        cached = await self._cache.page(self.base, wanted, after, limit)
        return ProjectPage(cached.page, as_read(choice.provenance, cached.state))

    async def get_project(self, id_: str) -> FoundProject:
        """By uid or short id. A cache that lacks it is no proof: the LIMS is asked before ProjectNotFoundError."""
        choice = await self._choose(refresh=False)
        provenance = choice.provenance
        if choice.catalogue is not None:
            for project in choice.catalogue.rows.projects:
                if id_ in (project.uid, project.short_id):
                    return FoundProject(project, provenance)
            raise ProjectNotFoundError(id_, provenance.source)
        found = await self._cache.find(self.base, id_)
        if found.page.projects:
            return FoundProject(found.page.projects[0], as_read(provenance, found.state))
        if provenance.source is Source.LIVE or provenance.stale:
            raise ProjectNotFoundError(id_, provenance.source)
        return await self._ask_for(id_)

    async def refresh(self) -> CacheState:
        """Fetches all projects as the LIMS has them from this moment on, once for all who ask at the same time."""
        return await self._refresh_once.anew()

    async def current_user(self) -> LimsUser:
        return await self._upstream.current_user()

    async def health(self) -> HealthReport:
        """Logs in if need be and asks who we are. Never raises for a LIMS that doesn't answer or let us in."""
        started = time.perf_counter()
        reason = ""
        try:
            await self._upstream.current_user()
        except LabferryError as error:
            reason = error.message
        return HealthReport(not reason, (time.perf_counter() - started) * 1000, reason)

    async def cache_state(self) -> CacheState | None:
        return await self._cache.state(self.base)

    @property
    def is_followed(self) -> bool:
        return self._followers > 0

    @contextmanager
    def followed(self) -> Iterator[None]:
        """For as long as somebody follows the projects."""
        self._followers += 1
        self._on_news()
        try:
            yield
        finally:
            self._followers -= 1

    def on_news(self, callback: Callable[[], None]) -> None:
        """Has `callback` called whenever the cache was refreshed, and when somebody begins to follow."""
        self._on_news = callback

    async def _ask_for(self, id_: str) -> FoundProject:
        asked_ns = self._clock()
        try:
            project = await self._upstream.project(id_)
        except (LimsUnreachableError, PasswordUnavailableError):
            raise ProjectNotFoundError(id_, Source.CACHE) from None
        if project is None:
            raise ProjectNotFoundError(id_, Source.LIVE)
        return FoundProject(project, Provenance(Source.LIVE, asked_ns, stale=False))

    async def _choose(self, *, refresh: bool) -> _Choice:
        state = await self._cache.state(self.base)
        if state is not None and not must_ask(state, self._clock(), self.ttl_ns, refresh=refresh):
            return _Choice(Provenance(Source.CACHE, state.fetched_ns, stale=False, skipped_rows=state.skipped))
        try:
            fetched = await self._refresh_once()
        except (LimsUnreachableError, PasswordUnavailableError) as error:
            return await self._instead(state, AskFailure.UNREACHABLE, error)
        except LimsLoginRefusedError as error:
            return await self._instead(state, AskFailure.REFUSED, error)
        except (CacheUnusableError, LogDiskFullError, LogUnavailableError) as error:
            return await self._instead(state, AskFailure.NOT_KEPT, error)
        return _Choice(Provenance(Source.LIVE, fetched.fetched_ns, stale=False, skipped_rows=fetched.skipped))

    async def _instead(self, state: CacheState | None, failure: AskFailure, error: Exception) -> _Choice:
        """What answers in the place of a LIMS that could not be asked. Raises `error` when nothing may, or is there."""
        problem = error.message if isinstance(error, LabferryError) else f"what the LIMS said can't be kept: {error}"
        source = fall_back(state, failure)
        if source is Source.CACHE and state is not None:
            return _Choice(Provenance(source, state.fetched_ns, True, state.skipped, upstream_failure=problem))
        catalogue = await self._read_catalogue() if source is Source.OFFLINE_CATALOGUE else None
        if catalogue is None:
            raise error
        provenance = Provenance(
            source=Source.OFFLINE_CATALOGUE,
            fetched_ns=catalogue.fetched_ns,
            stale=True,
            skipped_rows=catalogue.rows.skipped,
            upstream_failure=problem,
            produced_by=catalogue.produced_by,
            produced_ns=catalogue.produced_ns,
        )
        return _Choice(provenance, catalogue)

    async def _read_catalogue(self) -> Catalogue | None:
        return None if self._catalogue is None else await self._catalogue.read()

    async def _refresh(self) -> CacheState:
        asked_ns = self._clock()
        rows = await self._upstream.projects()
        # The log first: what can't be written there has not happened.
        await self._history.record(self.base, rows)
        await self._cache.replace_all(self.base, rows, asked_ns)
        if self._catalogue is not None:
            self._catalogue.offer(rows, asked_ns)
        if rows.skipped:
            self._logger.warning("lims_rows_skipped", lims=self.base, count=rows.skipped)
        self._on_news()
        return CacheState(asked_ns, len(rows.projects), rows.skipped)
