"""Looks at each name the moment it goes: what it held must be proven, freshly, to be at every destination."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from services.sync_engine.jobs.job import JobState
from services.sync_engine.jobs.read_model import latest_by_destination
from services.sync_engine.transfer.transport import CopiedFile, VerifyOutcome
from tests.faults.sync_engine.engine_parts import FOLDERS, RUN, Parts
from tests.faults.sync_engine.meddled_engine import deleted_path

CACHE = ".exlab-wizard"
HOUR = 3600.0


@dataclass
class WatchedDeletions:
    """`gone`: data names that went, in this order. `elsewhere`: a folder of which nothing may go. What a test spoils at
    a destination after it was read back there is told by `spoil`: nobody can know of it before the next reading."""

    parts: Parts
    gone: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    _read: dict[tuple[str, str], tuple[float, str]] = field(default_factory=dict)
    _spoilt: set[tuple[str, str]] = field(default_factory=set)

    @property
    def elsewhere(self) -> Path:
        return self.parts.folder / "elsewhere"

    def spoil(self, destination: str, name: str) -> None:
        self._spoilt.add((destination, name))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within it every reading before a cleanup, and every name that goes, is looked at."""
        loop, unlink = asyncio.get_running_loop(), os.unlink
        here = os.fsencode(os.path.realpath(self.parts.here))
        for place in self.parts.bench.destinations["CONFOCAL_01"]:
            self._listen(place.name, place.transport)

        def watched(name: Any, *, dir_fd: int | None = None) -> None:
            folder = b"" if dir_fd is None else os.readlink(b"/proc/self/fd/%d" % dir_fd)
            if (folder + b"/").startswith(os.fsencode(self.elsewhere) + b"/"):
                self.wrong.append(f"{name!r} went, which lies outside the run")
            if (folder + b"/").startswith(here + b"/"):
                relative = os.fsdecode(os.path.relpath(deleted_path(folder, name), here))
                content = held(Path(os.fsdecode(folder + b"/" + name)))
                asyncio.run_coroutine_threadsafe(self._look(relative, content), loop).result()
            unlink(name, dir_fd=dir_fd)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "unlink", watched)
            yield

    def _listen(self, destination: str, transport: Any) -> None:
        verify = transport.verify

        def heard(target: bytes, files: list[CopiedFile], **fields: Any) -> VerifyOutcome:
            outcome: VerifyOutcome = verify(target, files, **fields)
            # Only what reads in portions, for the cleanup, gives the whole list beside them.
            for read in outcome.evidence if "whole" in fields else ():
                name = os.fsdecode(read.path)
                self._spoilt.discard((destination, name))
                self._read[destination, name] = (self.parts.clock.monotonic(), read.sha256)
            return outcome

        transport.verify = heard

    async def _look(self, name: str, content: bytes | None) -> None:
        assert content is not None
        if name.startswith(f"{CACHE}/"):
            self._look_at_cache(name, content)
            return
        self.gone.append(name)
        for destination in self._destinations():
            at, sha256 = self._read.get((destination, name), (0.0, ""))
            if sha256 != hashlib.sha256(content).hexdigest():
                self.wrong.append(f"{name} went without evidence of {destination}")
            if self.parts.clock.monotonic() - at > HOUR:
                self.wrong.append(f"{name} went on old evidence of {destination}")
            if (destination, name) not in self._spoilt and self._there(destination, name) != content:
                self.wrong.append(f"{name} is lost at {destination}")
        # A job that was amended speaks for its destination no longer.
        jobs = latest_by_destination(await self.parts.bench.jobs_of_run(RUN))
        if any(job.state is not JobState.CLEANUP_ELIGIBLE for job in jobs.values()):
            self.wrong.append(f"{name} went although a copy was found not to match")
        record = await self.parts.bench.log.run(RUN)
        events = await self.parts.bench.log.store.read_stream(f"run-{RUN}")
        if record.open_cleanup is None or events[-1].type != "sync.run.cleanup_begun.v1":
            self.wrong.append(f"{name} went although something happened to the run")

    def _look_at_cache(self, name: str, content: bytes) -> None:
        for destination in self._destinations():
            if not name.endswith((".lock", ".tmp")) and self._there(destination, name) != content:
                self.wrong.append(f"{name} is lost at {destination}")

    def _destinations(self) -> list[str]:
        return [place.name for place in self.parts.bench.destinations["CONFOCAL_01"]]

    def _there(self, destination: str, name: str) -> bytes | None:
        copy = self.parts.copy(destination)
        away = self.parts.folder / f"away-{FOLDERS[destination]}"
        # Through a symlink it would be the run itself.
        is_itself = copy.exists() and not (self.parts.folder / FOLDERS[destination]).is_symlink()
        return held(copy / name) if is_itself else held(away / RUN.partition("/")[2] / name)


def held(path: Path) -> bytes | None:
    """A file's content, or where a symlink leads; None when there is neither."""
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISLNK(mode):
        return os.fsencode(path.readlink())
    return path.read_bytes() if stat.S_ISREG(mode) else None
