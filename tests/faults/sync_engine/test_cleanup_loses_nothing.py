"""Over random histories no name goes here whose very content isn't proven, freshly, to be at every destination.

Faults come at any time: between two steps, and before every single name that is about to go.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.event_log.store import EventStoreError
from libs.run_tree.creation_record import SyncStatus
from libs.service_kit.errors import LabferryError
from services.sync_engine.cleanup.interlocks import CleanupRules
from services.sync_engine.cleanup.ticket import Limits
from services.sync_engine.jobs.job import JobState
from services.sync_engine.jobs.read_model import latest_by_destination
from services.sync_engine.transfer.incoming import INCOMING
from services.sync_engine.transfer.transport import TransferError
from tests.faults.sync_engine.engine_parts import FOLDERS, RUN, Parts, engine_parts
from tests.faults.sync_engine.watched_deletions import CACHE, WatchedDeletions, held

NAMES = ("a.tif", "sub/b.csv", "sub/deep/c.bin", "d", "hard", "link")
"""`hard` is another name of `a.tif`, `link` a symlink to it."""

LIMITS = Limits(1000, 1 << 30, refused_fraction=1.0)


class CrashError(Exception):
    """The engine is gone from one moment to the next."""


@dataclass
class _History:
    """What a history does to a run, and what it has come to. `meanwhile`: one step before each name that goes,
    and one before it is told how it ended. `too_late`: what appeared in the run after the last look at it."""

    parts: Parts
    watch: WatchedDeletions
    meanwhile: list[Step] = field(default_factory=list)
    edits: int = 0
    too_late: set[Path] = field(default_factory=set)

    def content(self) -> bytes:
        self.edits += 1
        return f"edit {self.edits:04}".encode()

    def edit(self, number: int, *, quietly: bool) -> None:
        """Another content of the same size; quietly: the modification time is put back."""
        path = self.parts.here / NAMES[number]
        if path.is_symlink() and not path.parent.is_symlink():
            path.unlink()
            path.symlink_to("d")
        elif path.exists():
            _overwrite(path, self.content(), quietly=quietly)

    def replace(self, number: int) -> None:
        """By a new file, renamed into place."""
        path = self.parts.here / NAMES[number]
        if path.exists():
            new = path.with_name("new")
            new.write_bytes(self.content())
            os.replace(new, path)

    def relink(self) -> None:
        """The folder is moved elsewhere, and a symlink to it takes its place."""
        folder = self.parts.here / "sub"
        elsewhere = self.watch.elsewhere
        if folder.is_dir() and not folder.is_symlink() and not elsewhere.exists():
            folder.rename(elsewhere)
            folder.symlink_to(elsewhere)

    def rot(self, destination: str, number: int, *, gone: bool) -> None:
        path = self.parts.copy(destination) / NAMES[number]
        if held(path) is None:
            return
        self.watch.spoil(destination, NAMES[number])
        if gone or path.is_symlink():
            path.unlink()
        else:
            _overwrite(path, b"rotten   ", quietly=True)

    def vanish(self, destination: str) -> None:
        """The destination is away, or back."""
        folder = self.parts.folder / FOLDERS[destination]
        away = self.parts.folder / f"away-{FOLDERS[destination]}"
        (folder.rename(away) if folder.exists() else away.rename(folder))

    def become_the_source(self, destination: str) -> None:
        """The destination is the folder that the runs lie in, by another name; or it is itself again."""
        folder = self.parts.folder / FOLDERS[destination]
        away = self.parts.folder / f"away-{FOLDERS[destination]}"
        if folder.is_symlink():
            folder.unlink()
            away.rename(folder)
        elif folder.exists():
            folder.rename(away)
            source = self.parts.folder / "lab" / "CONFOCAL_01"
            (source / os.fsdecode(INCOMING)).mkdir(exist_ok=True)
            folder.symlink_to(source)

    def before_the_end(self) -> None:
        """Lets a step happen right before the outcome of a deletion is recorded."""
        store = self.parts.bench.log.store
        append = store.append

        async def meddle_and_append(appends, request=None, fence=None):  # type: ignore[no-untyped-def]
            if any(e.type == "sync.run.cleanup_ended.v1" for a in appends for e in a.events):
                there = set(self.data_here())
                await self.before_each_name()
                self.too_late |= set(self.data_here()) - there
            return await append(appends, request, fence)

        store.append = meddle_and_append  # type: ignore[method-assign]

    def data_here(self) -> list[Path]:
        return [p for p in self.parts.here.rglob("*") if CACHE not in p.parts and not p.is_dir()]

    async def before_each_name(self) -> None:
        if self.meanwhile:
            try:
                await self.meanwhile.pop(0)(self)
            except _REFUSALS:
                # A verification that finds rot says so to whoever asked for it.
                return


Step = Callable[[_History], Awaitable[None]]


async def _clean(history: _History) -> None:
    """The step that everything is about."""
    parts, gone = history.parts, len(history.watch.gone)
    try:
        answer = await parts.clean()
    except CrashError:
        history.meanwhile = []
        await parts.restart()
        assert (await parts.bench.log.run(RUN)).open_cleanup is None
        return
    assert answer.file_count == len(history.watch.gone) - gone
    if answer.cleaned:
        assert set(history.data_here()) <= history.too_late
        jobs = latest_by_destination(await parts.bench.jobs_of_run(RUN))
        assert {job.state for job in jobs.values()} == {JobState.CLEANED}
    elif not history.too_late:
        assert (await parts.bench.log.run(RUN)).sync_status is not SyncStatus.CLEANED


def _amid(steps: list[Step]) -> Step:
    async def step(history: _History) -> None:
        history.meanwhile = list(steps)
        try:
            await _clean(history)
        finally:
            history.meanwhile = []

    return step


def _overwrite(path: Path, content: bytes, *, quietly: bool) -> None:
    before = path.stat()
    path.write_bytes(content)
    if quietly:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _doing(what: Callable[[_History], object]) -> Step:
    async def step(history: _History) -> None:
        what(history)

    return step


async def _bring(history: _History) -> None:
    await history.parts.bring()


async def _pass(history: _History) -> None:
    await history.parts.pass_over()


def _found_rotten(destination: str, number: int) -> Step:
    """A copy rots, and somebody looks."""

    async def step(history: _History) -> None:
        history.rot(destination, number, gone=False)
        await _pass(history)

    return step


def _rotten_for_hours(destination: str, number: int) -> Step:
    """A copy rots, nobody looks, and what was read of it before is too old soon."""

    async def step(history: _History) -> None:
        history.rot(destination, number, gone=False)
        await _elapse(90)(history)

    return step


async def _revoke(history: _History) -> None:
    await history.parts.revoke_an_override()
    await history.parts.seal_anew()


async def _crash(history: _History) -> None:
    raise CrashError


async def _restart(history: _History) -> None:
    await history.parts.restart()


def _jump(hours: int) -> Step:
    """The wall clock is set."""
    return _doing(lambda h: setattr(h.parts.clock, "now", h.parts.clock.now + hours * timedelta(hours=1)))


def _elapse(minutes: int) -> Step:
    """Time goes by for everybody."""

    def pass_by(history: _History) -> None:
        history.parts.clock.passed += minutes * 60.0
        history.parts.clock.now += timedelta(minutes=minutes)

    return _doing(pass_by)


_NUMBER = st.integers(0, len(NAMES) - 1)
_PLACE = st.sampled_from(list(FOLDERS))
_FAULTS: st.SearchStrategy[Step] = st.one_of(
    st.builds(lambda n, q: _doing(lambda h: h.edit(n, quietly=q)), _NUMBER, st.booleans()),
    st.builds(lambda n: _doing(lambda h: h.replace(n)), _NUMBER),
    st.builds(lambda p, n, g: _doing(lambda h: h.rot(p, n, gone=g)), _PLACE, _NUMBER, st.booleans()),
    st.builds(lambda n: _doing(lambda h: (h.parts.here / NAMES[n]).unlink(missing_ok=True)), _NUMBER),
    st.builds(lambda n: _doing(lambda h: (h.parts.here / f"late-{n}").write_bytes(b"late")), _NUMBER),
    st.just(_doing(_History.relink)),
    _PLACE.map(lambda p: _doing(lambda h: h.vanish(p))),
    _PLACE.map(lambda p: _doing(lambda h: h.become_the_source(p))),
    st.just(_revoke),
    st.sampled_from([-30, -2, 2, 50]).map(_jump),
    st.sampled_from([20, 40, 90]).map(_elapse),
)
_MEANWHILE: st.SearchStrategy[Step] = st.one_of(
    st.builds(_found_rotten, _PLACE, _NUMBER),
    st.builds(_rotten_for_hours, _PLACE, _NUMBER),
    _FAULTS,
    st.just(_doing(lambda h: h.edit(NAMES.index("link"), quietly=False))),
    st.sampled_from([_pass, _revoke, _crash, _elapse(0)]),
    st.sampled_from([20, 40, 90]).map(_elapse),
)
_WORK: st.SearchStrategy[Step] = st.one_of(
    st.just(_bring),
    st.just(_pass),
    st.just(_restart),
    st.lists(_MEANWHILE, max_size=4).map(_amid),
    st.sampled_from([23, 25]).map(lambda hours: _elapse(hours * 60)),
)
_STEPS = st.one_of(_WORK, _FAULTS)
_READY: list[Step] = [_bring, _pass, _elapse(25 * 60)]
_REFUSALS = (LabferryError, EventStoreError, TransferError, OSError)


async def _live_through(folder: Path, steps: list[Step], *, retain_cache: bool = True) -> tuple[list[str], Path]:
    rules = CleanupRules(True, 2, timedelta(hours=24), retain_cache, LIMITS)
    async with engine_parts(folder, rules, portion_files=1, archive=True) as parts:
        for name in NAMES[:4]:
            (parts.here / name).parent.mkdir(parents=True, exist_ok=True)
            (parts.here / name).write_bytes(f"of {name}"[:9].ljust(9).encode())
        os.link(parts.here / "a.tif", parts.here / "hard")
        (parts.here / "link").symlink_to("a.tif")
        history = _History(parts, WatchedDeletions(parts))
        parts.before_each_deletion(history.before_each_name)
        history.before_the_end()
        with history.watch.watching():
            for step in steps:
                try:
                    await step(history)
                except (*_REFUSALS, CrashError):
                    continue
                finally:
                    assert history.watch.wrong == []
        return history.watch.gone, parts.here


@pytest.mark.slow
@settings(max_examples=50, suppress_health_check=list(HealthCheck))
@given(st.lists(_STEPS, max_size=1), st.lists(_STEPS, max_size=2), st.lists(_MEANWHILE, max_size=7), st.booleans())
def test_no_history_loses_a_file(
    early: list[Step], late: list[Step], meanwhile: list[Step], retain_cache: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        steps = [*early, *_READY, *late, _amid(meanwhile), _pass, _elapse(25 * 60), _clean]
        asyncio.run(_live_through(Path(folder), steps, retain_cache=retain_cache))


@pytest.mark.parametrize("retain_cache", [True, False])
def test_a_history_without_faults_ends_cleaned(tmp_path: Path, retain_cache: bool) -> None:
    gone, here = asyncio.run(_live_through(tmp_path, [*_READY, _clean], retain_cache=retain_cache))
    assert sorted(gone) == sorted(NAMES)
    assert (here / CACHE).exists() is retain_cache


def test_a_crash_before_the_third_name_loses_nothing_and_the_next_try_ends_cleaned(tmp_path: Path) -> None:
    crash = _amid([_elapse(0), _elapse(0), _crash])
    gone, _ = asyncio.run(_live_through(tmp_path, [*_READY, crash, _clean]))
    assert sorted(gone) == sorted(NAMES)


def test_destinations_that_are_the_source_take_nothing_with_them(tmp_path: Path) -> None:
    become = [_doing(lambda h, p=place: h.become_the_source(p)) for place in FOLDERS]  # type: ignore[misc]
    ready: list[Step] = [*become, *_READY, _clean]
    assert asyncio.run(_live_through(tmp_path, ready))[0] == []
