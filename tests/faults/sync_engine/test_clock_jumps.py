"""The machine's clock jumps, in a real engine: nobody waits longer, the log's times never fall, and doctor tells."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from labferry.sync.v1 import job_pb2
from tests.e2e.terminal import Operator
from tests.integration.sync_engine.running_engine import Engine, Site, running_engine, same_tree

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
"""Debian's; `make test` installs it."""
BACKOFF = job_pb2.WAIT_CONDITION_BACKOFF
pytestmark = pytest.mark.slow


class Clock:
    """What a process that is started in the block takes for the time of day; its monotonic clock goes on as ever."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.jump("+0")

    def jump(self, offset: str) -> None:
        """By so much from the true time: "+3h", "-1d"."""
        self._file.with_suffix(".new").write_text(offset + "\n", encoding="ascii")
        self._file.with_suffix(".new").replace(self._file)

    @contextmanager
    def for_children(self) -> Iterator[None]:
        assert LIBRARY is not None, "tests/parts.sh installs faketime"
        environment = {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
        os.environ.update(environment)
        try:
            yield
        finally:
            for name in environment:
                del os.environ[name]


async def _into_backoff(engine: Engine, run: str) -> str:
    """A job whose first attempt the share failed."""
    job_id = (await engine.enqueue(run)).job.job_id
    await engine.until_copying(job_id)
    shutil.rmtree(engine.site.nas() / ".labferry-incoming" / f"{job_id}-1")
    await engine.until_waiting(job_id, BACKOFF)
    return job_id


async def _goes_on(site: Site, engine: Engine, run: str, job_id: str) -> None:
    # Not until it is sealed: under libfaketime time.sleep() fails, by which a file's lock is waited for.
    job = await engine.until_state(job_id, job_pb2.JOB_STATE_VERIFIED)
    assert job.attempt == 2
    same_tree(site.local(run), site.at_nas(run))
    times = [e.recorded_time.ToNanoseconds() for e in await engine.events()]
    assert times == sorted(times)


@pytest.mark.parametrize(
    ("offset", "restart"),
    [("-1d", False), ("+3h", False), ("+3h", True)],
    ids=["back", "forth", "forth, and a restart"],
)
async def test_a_jump_makes_no_backoff_longer(site: Site, offset: str, restart: bool) -> None:
    """The pause is 33 s at most; `until_state` waits for 60 s."""
    site.lab.settings["equipment"].clear()
    site.equip(transport={"bandwidth": {"upload_mbps": 64}})
    run = site.make_run({f"{n}.h5": os.urandom(1_500_000) for n in range(4)})
    clock = Clock(site.lab.folder / "clock")
    with clock.for_children():
        async with running_engine(site) as engine:
            job_id = await _into_backoff(engine, run)
            clock.jump(offset)
            if not restart:
                await _goes_on(site, engine, run, job_id)
        if restart:
            async with running_engine(site) as engine:
                await _goes_on(site, engine, run, job_id)


async def test_doctor_tells_of_a_log_that_lies_ahead_of_the_clock(site: Site) -> None:
    clock = Clock(site.lab.folder / "clock")
    clock.jump("+400d")
    with clock.for_children():
        async with running_engine(site):
            clock.jump("+0")
            checks = {check["part"]: check for check in (await Operator(site)("doctor", "-o", "json")).json}
    assert not checks["clock"]["ok"]
    assert "the newest event lies 400 days ahead of it" in checks["clock"]["detail"]
