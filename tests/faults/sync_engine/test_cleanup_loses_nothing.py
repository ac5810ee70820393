"""Over random histories no file is deleted here whose very content isn't proven, freshly, to be at the destination."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labferry.events.v1 import job_events_pb2, run_events_pb2
from libs.event_log.store import EventStoreError
from libs.service_kit.errors import LabferryError
from services.sync_engine.event_types import EVENT_TYPES
from services.sync_engine.jobs.file_list import read_evidence
from services.sync_engine.transfer.transport import TransferError
from tests.faults.sync_engine.engine_parts import Parts, engine_parts

NAMES = ("a.tif", "sub/b.csv", "sub/deep/c.bin", "d")
HOURS = timedelta(hours=1)


@dataclass
class _History:
    """What a history does to a run, and what it has come to."""

    parts: Parts
    meanwhile: Callable[[], None] | None = None
    cleaned: int = 0
    edits: int = 0
    told: list[str] = field(default_factory=list)

    def edit(self, number: int, *, quietly: bool) -> None:
        """Another content of the same size; quietly: the modification time is put back."""
        path = self.parts.here / NAMES[number]
        if not path.exists():
            return
        before = path.stat()
        self.edits += 1
        path.write_bytes(f"edit {self.edits:04}".encode())
        if quietly:
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    def replace(self, number: int) -> None:
        """By a new file, renamed into place."""
        path = self.parts.here / NAMES[number]
        if path.exists():
            self.edits += 1
            new = path.with_name("new")
            new.write_bytes(f"edit {self.edits:04}".encode())
            os.replace(new, path)

    def rot(self, number: int) -> None:
        path = self.parts.there / NAMES[number]
        if path.exists():
            before = path.stat()
            path.write_bytes(b"rotten   ")
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


Step = Callable[[_History], Awaitable[None]]


async def _clean(history: _History) -> None:
    """The step that everything is about."""
    parts = history.parts
    store = parts.bench.log.store
    behind = store.head
    append = store.append

    async def append_and_meddle(appends, request=None, fence=None):  # type: ignore[no-untyped-def]
        result = await append(appends, request, fence)
        if history.meanwhile and any(e.type == "sync.run.cleanup_begun.v1" for e in result.events):
            meddle, history.meanwhile = history.meanwhile, None
            meddle()
            before.update(_content(parts.here))
        return result

    before = _content(parts.here)
    store.append = append_and_meddle  # type: ignore[method-assign]
    try:
        answer = await parts.clean()
    finally:
        store.append = append  # type: ignore[method-assign]
    after = _content(parts.here)
    deleted = {path: content for path, content in before.items() if path not in after}
    history.cleaned += len(deleted)
    fresh = await _freshly_read(parts, behind)
    there = _content(parts.there)
    for path, content in deleted.items():
        assert there.get(path) == content, f"{path} is lost"
        assert fresh.get(path) == hashlib.sha256(content).hexdigest(), f"{path} went without fresh evidence"
    assert answer.file_count == len(deleted)
    if answer.cleaned:
        assert after == {}


async def _freshly_read(parts: Parts, behind: int) -> dict[str, str]:
    """What was read back at the destination since this cleanup began, by the evidence that its ticket names."""
    events = [e async for page in parts.bench.log.store.read(behind) for e in page]
    decoded = {e.position: EVENT_TYPES.decode(e) for e in events}
    named = [p for p in decoded.values() if isinstance(p, run_events_pb2.RunCleanupBegun)]
    found: dict[str, str] = {}
    for begun in named:
        for evidence in begun.evidence:
            verified = decoded[evidence.position]
            assert isinstance(verified, job_events_pb2.JobVerified)
            lines = await asyncio.to_thread(read_evidence, parts.bench.blobs, verified.evidence_blob)
            found |= {os.fsdecode(line.path): line.sha256 for line in lines}
    return found


def _content(folder: Path) -> dict[str, bytes]:
    """The data files of a run, by path relative to it."""
    names = [p for p in folder.rglob("*") if p.is_file() and ".exlab-wizard" not in p.parts]
    return {str(p.relative_to(folder)): p.read_bytes() for p in names}


def _doing(what: Callable[[_History], object]) -> Step:
    async def step(history: _History) -> None:
        what(history)

    return step


def _vanish(history: _History) -> None:
    nas, away = history.parts.folder / "nas", history.parts.folder / "away"
    (nas.rename(away) if nas.exists() else away.rename(nas))


async def _bring(history: _History) -> None:
    await history.parts.bring()


async def _pass(history: _History) -> None:
    await history.parts.pass_over()


async def _revoke(history: _History) -> None:
    await history.parts.revoke_an_override()


def _jump(hours: int) -> Step:
    return _doing(lambda h: setattr(h.parts.clock, "now", h.parts.clock.now + hours * HOURS))


_NUMBER = st.integers(0, len(NAMES) - 1)
_FAULTS: st.SearchStrategy[Step] = st.one_of(
    st.builds(lambda n, q: _doing(lambda h: h.edit(n, quietly=q)), _NUMBER, st.booleans()),
    st.builds(lambda n: _doing(lambda h: h.replace(n)), _NUMBER),
    st.builds(lambda n: _doing(lambda h: h.rot(n)), _NUMBER),
    st.builds(lambda n: _doing(lambda h: (h.parts.there / NAMES[n]).unlink(missing_ok=True)), _NUMBER),
    st.builds(lambda n: _doing(lambda h: (h.parts.here / NAMES[n]).unlink(missing_ok=True)), _NUMBER),
    st.builds(lambda n: _doing(lambda h: (h.parts.here / f"late-{n}").write_bytes(b"late")), _NUMBER),
    st.builds(lambda n: _doing(lambda h: setattr(h, "meanwhile", lambda: h.replace(n))), _NUMBER),
    st.builds(lambda n: _doing(lambda h: setattr(h, "meanwhile", lambda: h.edit(n, quietly=True))), _NUMBER),
    st.just(_doing(_vanish)),
    st.just(_revoke),
)
_WORK: st.SearchStrategy[Step] = st.one_of(
    st.just(_bring), st.just(_pass), st.just(_clean), st.sampled_from([-30, -2, 1, 23, 25, 50]).map(_jump)
)
_REFUSALS = (LabferryError, EventStoreError, TransferError, OSError)


async def _live_through(folder: Path, prologue: list[Step], steps: list[Step]) -> int:
    async with engine_parts(folder) as parts:
        for name in NAMES:
            (parts.here / name).parent.mkdir(parents=True, exist_ok=True)
            (parts.here / name).write_bytes(f"of {name}"[:9].ljust(9).encode())
        history = _History(parts)
        for step in [*prologue, *steps, _clean]:
            try:
                await step(history)
            except _REFUSALS as refused:
                history.told.append(str(refused))
        return history.cleaned


@pytest.mark.slow
@settings(max_examples=120, suppress_health_check=list(HealthCheck))
@given(st.lists(st.one_of(_WORK, _FAULTS), max_size=3), st.lists(st.one_of(_WORK, _FAULTS), max_size=6))
def test_no_history_loses_a_file(early: list[Step], late: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_live_through(Path(folder), [*early, _bring, _pass, _jump(25)], late))


def test_a_history_without_faults_ends_cleaned(tmp_path: Path) -> None:
    assert asyncio.run(_live_through(tmp_path, [_bring, _pass, _jump(25)], [])) == len(NAMES)
