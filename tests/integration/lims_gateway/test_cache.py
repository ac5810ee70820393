"""The cache file itself: what a lookup costs, and that its pages are those of the same projects in memory."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from services.lims_gateway.projects.cache import FIND, ProjectCache
from services.lims_gateway.projects.paging import PageKey, ProjectFilter, page_of
from services.lims_gateway.projects.project import Project, ProjectRows, ProjectStatus

HERE, ELSEWHERE = "https://lims.example", "https://other.example"


def made(count: int) -> list[Project]:
    return [Project(f"uid-{n}", f"PROJ-{n}", f"name {n}", ProjectStatus.ACTIVE, n) for n in range(count)]


async def filled(path: Path, projects: list[Project]) -> ProjectCache:
    cache = await ProjectCache.open(path, structlog.get_logger())
    await cache.replace_all(HERE, ProjectRows(projects), 1)
    return cache


def steps_of(path: Path, id_: str) -> int:
    """Instructions of SQLite's virtual machine that one lookup takes."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    with closing(sqlite3.connect(path)) as connection:
        connection.set_progress_handler(count, 1)
        assert len(connection.execute(FIND, (HERE, id_)).fetchall()) == 1
    return steps


async def test_a_lookup_costs_the_same_however_many_there_are(tmp_path: Path) -> None:
    costs = []
    for count in (10, 100_000):
        path = tmp_path / f"{count}.sqlite3"
        await (await filled(path, made(count))).close()
        costs.append((steps_of(path, "uid-7"), steps_of(path, "PROJ-7")))
        with closing(sqlite3.connect(path)) as connection:
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {FIND}", (HERE, "uid-7"))]
        assert sum("SEARCH project USING INDEX" in line for line in plan) == 2, plan
        assert not any("SCAN project" in line for line in plan), plan
    assert costs[0] == costs[1]


async def test_endpoints_share_a_file_and_nothing_else(tmp_path: Path) -> None:
    cache = await filled(tmp_path / "c.sqlite3", made(3))
    await cache.replace_all(ELSEWHERE, ProjectRows(made(2), skipped=4), 9)
    await cache.replace_all(HERE, ProjectRows(made(1)), 5)
    assert (await cache.find(ELSEWHERE, "PROJ-1")).page.projects == [made(2)[1]]
    assert (await cache.find(HERE, "PROJ-1")).page.projects == []
    state = await cache.state(ELSEWHERE)
    assert state is not None
    assert (state.fetched_ns, state.count, state.skipped) == (9, 2, 4)
    await cache.close()


names = st.text(st.sampled_from("aAéÉ ß中"), min_size=1, max_size=3)
projects = st.lists(
    st.builds(
        Project,
        uid=names,
        short_id=names,
        name=names,
        status=st.sampled_from(ProjectStatus),
    ),
    unique_by=(lambda p: p.uid, lambda p: p.short_id),
    max_size=8,
)
filters = st.builds(
    ProjectFilter, statuses=st.frozensets(st.sampled_from(ProjectStatus), max_size=2), query=st.just("") | names
)


async def test_pages_are_those_of_the_projects_in_memory(tmp_path: Path) -> None:
    cache = await filled(tmp_path / "c.sqlite3", [])
    examples: list[tuple[list[Project], ProjectFilter, PageKey | None, int]] = []

    @settings(max_examples=150, deadline=None)
    @given(projects, filters, st.none() | st.builds(PageKey, names, names), st.integers(1, 4))
    def collect(found: list[Project], wanted: ProjectFilter, after: PageKey | None, limit: int) -> None:
        examples.append((found, wanted, after, limit))

    collect()
    for found, wanted, after, limit in examples:
        await cache.replace_all(HERE, ProjectRows(found), 1)
        expected = page_of(found, wanted, after, limit)
        page = (await cache.page(HERE, wanted, after, limit)).page
        assert (list(page.projects), page.next_key) == (list(expected.projects), expected.next_key)
    await cache.close()
