"""The policy of SPEC §6: which source answers, and what an answer says about itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from libs.service_kit.errors import LabferryError
from libs.service_kit.telemetry import Logger
from services.lims_gateway.projects.cache import CacheState, ProjectCache
from services.lims_gateway.projects.errors import (
    LimsNotConfiguredError,
    LimsUnreachableError,
    PasswordUnavailableError,
    ProjectNotFoundError,
    UnknownEndpointError,
)
from services.lims_gateway.projects.paging import PageKey, ProjectFilter
from services.lims_gateway.projects.project import Project
from services.lims_gateway.projects.single_flight import SingleFlight
from services.lims_gateway.projects.upstream import LimsUpstream, base_of


class Source(StrEnum):
    LIVE = "live"
    CACHE = "cache"


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where an answer came from. `fetched_ns`: when the LIMS was asked for it, nanoseconds since the epoch.

    `stale`: older than the time to live, or served because the LIMS could not be asked; `upstream_failure` says why.
    """

    source: Source
    fetched_ns: int
    stale: bool
    skipped_rows: int = 0
    upstream_failure: str = ""


@dataclass(frozen=True, slots=True)
class ProjectPage:
    """`next_key` is None on the last page."""

    projects: Sequence[Project]
    provenance: Provenance
    next_key: PageKey | None = None


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


class Directory:
    """Projects of the configured LIMS: the fresh cache, else the LIMS, else the cache marked stale.

    Every method but `health` raises LimsNotConfiguredError without a LIMS, LimsLoginRefusedError when the LIMS doesn't
    let us in (a stale cache doesn't hide that), and LimsUnreachableError or PasswordUnavailableError when it can't be
    asked and nothing is cached.
    """

    def __init__(
        self,
        endpoint: str,
        upstream: LimsUpstream | None,
        cache: ProjectCache,
        time_to_live: timedelta,
        logger: Logger,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._base = base_of(endpoint)
        self._upstream = upstream
        self._cache = cache
        self._ttl_ns = int(time_to_live.total_seconds() * 1e9)
        self._logger = logger
        self._clock = clock
        self._refresh_once = SingleFlight(self._refresh)

    async def close(self) -> None:
        await self._refresh_once.close()

    async def list_projects(
        self, wanted: ProjectFilter, after: PageKey | None, limit: int, *, refresh: bool, endpoint: str | None = None
    ) -> ProjectPage:
        """One page. `refresh` asks the LIMS even when the cache is fresh. UnknownEndpointError for another endpoint."""
        upstream = self._configured()
        if endpoint is not None and base_of(endpoint) != self._base:
            raise UnknownEndpointError(endpoint)
        provenance = await self._up_to_date(upstream, refresh=refresh)
        page = await self._cache.page(self._base, wanted, after, limit)
        last = page.projects[-1] if page.more else None
        return ProjectPage(page.projects, provenance, PageKey(last.name, last.uid) if last else None)

    async def get_project(self, id_: str) -> FoundProject:
        """By uid or short id. A cache that lacks it is no proof: the LIMS is asked before ProjectNotFoundError."""
        upstream = self._configured()
        provenance = await self._up_to_date(upstream, refresh=False)
        found = await self._cache.find(self._base, id_)
        if found.projects:
            return FoundProject(found.projects[0], provenance)
        if provenance.source is Source.LIVE or provenance.stale:
            raise ProjectNotFoundError(id_, provenance.source)
        asked_ns = self._clock()
        try:
            project = await upstream.project(id_)
        except (LimsUnreachableError, PasswordUnavailableError):
            raise ProjectNotFoundError(id_, Source.CACHE) from None
        if project is None:
            raise ProjectNotFoundError(id_, Source.LIVE)
        return FoundProject(project, Provenance(Source.LIVE, asked_ns, stale=False))

    async def health(self) -> HealthReport:
        """Logs in if need be and asks who we are. Never raises for a LIMS that doesn't answer or let us in."""
        started = time.perf_counter()
        reason = ""
        try:
            await self._configured().check()
        except LabferryError as error:
            reason = error.message
        return HealthReport(not reason, (time.perf_counter() - started) * 1000, reason)

    def _configured(self) -> LimsUpstream:
        if self._upstream is None:
            raise LimsNotConfiguredError()
        return self._upstream

    async def _up_to_date(self, upstream: LimsUpstream, *, refresh: bool) -> Provenance:
        """Sees to it that the cache holds what SPEC §6 asks for, and says what that is."""
        state = await self._cache.state(self._base)
        if state is not None and not refresh and self._is_fresh(state):
            return Provenance(Source.CACHE, state.fetched_ns, stale=False, skipped_rows=state.skipped)
        try:
            fetched = await self._refresh_once()
        except (LimsUnreachableError, PasswordUnavailableError) as error:
            if state is None or state.count == 0:
                raise
            return Provenance(Source.CACHE, state.fetched_ns, True, state.skipped, upstream_failure=error.message)
        return Provenance(Source.LIVE, fetched.fetched_ns, stale=False, skipped_rows=fetched.skipped)

    async def _refresh(self) -> CacheState:
        asked_ns = self._clock()
        rows = await self._configured().projects()
        await self._cache.replace_all(self._base, rows, asked_ns)
        if rows.skipped:
            self._logger.warning("lims_rows_skipped", count=rows.skipped)
        return CacheState(asked_ns, len(rows.projects), rows.skipped)

    def _is_fresh(self, state: CacheState) -> bool:
        # A fetch time in the future comes from a clock that was wrong once: not to be believed for long.
        return state.count > 0 and 0 <= self._clock() - state.fetched_ns < self._ttl_ns
