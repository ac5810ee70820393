"""Random outages: whatever fails when, the answer is the one that SPEC §6 gives.

Cache, log, catalogue file and directory are the real ones; the LIMS is a stand-in that fails on command, and time is
the test's.
"""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.event_log.memory_store import MemoryEventStore
from libs.service_kit.errors import LabferryError
from libs.service_kit.work_threads import WorkThreads
from services.lims_gateway.projects.cache import ProjectCache
from services.lims_gateway.projects.catalogue import CatalogueFile
from services.lims_gateway.projects.catalogue_format import encode_catalogue
from services.lims_gateway.projects.directory import Directory, KeptCopies
from services.lims_gateway.projects.errors import (
    LimsLoginRefusedError,
    LimsUnreachableError,
    PasswordUnavailableCause,
    PasswordUnavailableError,
)
from services.lims_gateway.projects.history import ProjectHistory
from services.lims_gateway.projects.paging import ProjectFilter
from services.lims_gateway.projects.policy import Source
from services.lims_gateway.projects.project import Project, ProjectRows, ProjectStatus
from services.lims_gateway.projects.upstream import LimsUser

ENDPOINT = "https://lims.example/api/v1"
HOUR = 3600 * 1_000_000_000
TTL = timedelta(hours=24)
FAILURES = {
    "down": LimsUnreachableError(ENDPOINT, "it is down"),
    "sealed": PasswordUnavailableError(PasswordUnavailableCause.SEALED, "sealed"),
    "refused": LimsLoginRefusedError(ENDPOINT, "a@b", "refused"),
}


@dataclass(frozen=True)
class Step:
    """`listed`: how many projects the LIMS has now. `catalogue`: how many the file has; None: there is none."""

    hours: int
    lims: str
    listed: int
    catalogue: int | None
    refresh: bool


steps = st.builds(
    Step,
    hours=st.integers(0, 30),
    lims=st.sampled_from(["up", "up", *FAILURES]),
    listed=st.integers(0, 3),
    catalogue=st.none() | st.integers(0, 3),
    refresh=st.booleans(),
)


def made(count: int, where: str) -> list[Project]:
    return [Project(f"{where}-{n}", f"{where}-{n}", f"{where} {n}", ProjectStatus.ACTIVE) for n in range(count)]


@dataclass
class StandIn:
    """A LIMS that does what the step says."""

    step: Step = Step(0, "up", 0, None, False)
    asked: int = 0

    async def projects(self) -> ProjectRows:
        self.asked += 1
        if self.step.lims != "up":
            raise FAILURES[self.step.lims]
        return ProjectRows(made(self.step.listed, "live"))

    async def project(self, id_: str) -> Project | None:
        return next((p for p in (await self.projects()).projects if p.uid == id_), None)

    async def current_user(self) -> LimsUser:
        return LimsUser(1, "a@b")

    async def close(self) -> None:
        return


@dataclass
class Oracle:
    """What SPEC §6 says, kept apart from how it is done."""

    cached: int | None = None
    fetched: int = 0

    def answer(self, step: Step, now: int) -> tuple[Any, ...]:
        """(source, stale, how many projects, fetched), or the error."""
        fresh = bool(self.cached) and now - self.fetched < 24 * HOUR
        if fresh and not step.refresh:
            return Source.CACHE, False, self.cached, self.fetched
        if step.lims == "up":
            self.cached, self.fetched = step.listed, now
            return Source.LIVE, False, step.listed, now
        if step.lims == "refused":
            return (LimsLoginRefusedError,)
        if self.cached:
            return Source.CACHE, True, self.cached, self.fetched
        if step.catalogue is not None:
            return Source.OFFLINE_CATALOGUE, True, step.catalogue, HOUR
        return (type(FAILURES[step.lims]),)


@dataclass
class Clock:
    now: int = 1_800_000_000 * 1_000_000_000

    def __call__(self) -> int:
        return self.now


class OnlyRead(CatalogueFile):
    """What another gateway wrote: this one's own would be in its place sooner or later."""

    def offer(self, rows: ProjectRows, fetched_ns: int) -> None:
        return


async def answer_of(directory: Directory, step: Step) -> tuple[Any, ...]:
    try:
        found = await directory.list_projects(ProjectFilter(), None, 10, refresh=step.refresh)
    except LabferryError as error:
        return (type(error),)
    said = found.provenance
    assert bool(said.upstream_failure) == said.stale
    assert (said.produced_by == "another") == (said.source is Source.OFFLINE_CATALOGUE)
    if found.page.projects:
        await agrees(directory, found.page.projects[0].uid, said.source)
    return said.source, said.stale, len(found.page.projects), said.fetched_ns


async def agrees(directory: Directory, uid: str, source: Source) -> None:
    """A get right after a list answers from the same place; what was live then is the fresh cache now."""
    found = await directory.get_project(uid)
    assert found.project.uid == uid
    assert found.provenance.source is (Source.CACHE if source is Source.LIVE else source)


@settings(max_examples=60, deadline=None)
@given(st.lists(steps, min_size=1, max_size=12))
def test_the_answer_is_always_the_one_that_the_specification_gives(outages: list[Step]) -> None:
    asyncio.run(live_through(outages))


async def live_through(outages: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "catalogue.json"
        logger = structlog.get_logger()
        cache = await ProjectCache.open(Path(folder) / "projects.sqlite3", logger)
        store = MemoryEventStore(service="lims_gateway", version="0")
        clock, lims, oracle, threads = Clock(), StandIn(), Oracle(), WorkThreads("catalogue")
        catalogue = OnlyRead(path, ENDPOINT, "this", threads, logger, clock)
        copies = KeptCopies(cache, await ProjectHistory.load(store), catalogue)
        directory = Directory(ENDPOINT, lims, copies, TTL, logger, clock)
        try:
            for step in outages:
                clock.now += step.hours * HOUR
                lims.step = step
                path.unlink(missing_ok=True)
                if step.catalogue is not None:
                    rows = made(step.catalogue, "other")
                    path.write_bytes(encode_catalogue(ENDPOINT, "another", HOUR, HOUR, rows))
                assert await answer_of(directory, step) == oracle.answer(step, clock.now), step
        finally:
            await directory.close()
            await cache.close()
            await store.close()
            threads.close()
