"""The run's own log for people: a line an event, in order, and never twice, whatever is killed or lost."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
from pathlib import Path

from labferry.sync.v1 import finding_pb2
from tests.integration.sync_engine.running_engine import PATIENCE, Engine, Site, running_engine, start_engine

LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ \[(INFO |WARN |DEBUG|ERROR)\] \[host:[^]]+\] \[equip:CONFOCAL_01\]"
    r" \[proj:PROJ-0042\] \[kind:experimental\] \[run:Run_2026-04-17T14-32\] .+"
)


def _log(site: Site, run: str) -> Path:
    return site.local(run) / ".exlab-wizard" / f"wizard.{socket.gethostname()}.log"


async def _lines(engine: Engine, run: str) -> list[str]:
    """The lines, once there are as many as the log has events of the run."""
    (job,) = (await engine.run(run)).jobs
    streams = {f"run-{run}", f"job-{job.job_id}"}
    path = _log(engine.site, run)
    async with asyncio.timeout(PATIENCE):
        while True:
            lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
            # Asked after it: an event may come at any moment.
            expected = len([e for e in await engine.events() if e.stream in streams])
            assert len(lines) <= expected, lines
            if len(lines) == expected:
                return lines
            await asyncio.sleep(0.05)


async def test_each_event_of_the_run_is_one_line_in_order(engine: Engine) -> None:
    site = engine.site
    run = site.make_run({"{{ cookiecutter.name }}.tif": b"1"})
    await engine.enqueue(run)
    await engine.override(run, finding_pb2.RULE_LEFTOVER_JINJA_MARKER)
    job = await engine.bring(run)
    lines = await _lines(engine, run)
    for line in lines:
        assert LINE.fullmatch(line), line
    told = [line.partition("[run:Run_2026-04-17T14-32] ")[2] for line in lines]
    assert told[0] == "not queued: 1 hard findings without an active override by operator-1"
    assert any(t.startswith("override ") and "for asmith: meant" in t for t in told)
    ends = [
        t for t in told if t.startswith(("queued for default", "attempt 1 began", "verified: 1 of 1", "sealed with"))
    ]
    assert [t.split()[0] for t in ends] == ["queued", "attempt", "verified:", "sealed"]
    assert job.job_id in ends[0]


async def test_killed_and_started_again_no_line_comes_twice_and_none_is_lacking(site: Site) -> None:
    run = site.make_run({f"{n}.tif": b"x" * 50_000 for n in range(100)})
    engine = await start_engine(site)
    stream = f"job-{(await engine.enqueue(run)).job.job_id}"
    for event in ("started", "copied"):
        await engine.until_event(stream, f"sync.job.{event}.v1")
        await engine.kill()
        engine = await start_engine(site)
    (job,) = (await engine.run(run)).jobs
    await engine.until_sealed(job.job_id)
    await _lines(engine, run)
    await engine.kill()
    state = site.lab.state_dir / "sync_engine"
    (state / "run_logs.json").unlink()
    for leftover in state.glob("read_models.sqlite3*"):
        leftover.unlink()
    async with running_engine(site) as engine:
        await engine.override(run, finding_pb2.RULE_LEFTOVER_JINJA_MARKER)
        lines = await _lines(engine, run)
        assert len(set(lines)) > len(lines) - 3, "lines of one second may be alike; these are few"


async def test_a_line_that_the_wizard_wrote_stays_and_a_log_that_could_not_be_written_catches_up(site: Site) -> None:
    run = site.make_run()
    path = _log(site, run)
    path.write_text("2026-04-17T14:00:00Z [INFO ] [host:x] from the wizard\n", encoding="utf-8")
    async with running_engine(site) as engine:
        await engine.bring(run)
    written = path.read_text(encoding="utf-8")
    assert written.startswith("2026-04-17T14:00:00Z [INFO ] [host:x] from the wizard\n")
    shutil.move(path, path.with_name("kept"))
    path.mkdir()
    async with running_engine(site) as engine:
        await engine.override(run, finding_pb2.RULE_LEFTOVER_JINJA_MARKER)
    path.rmdir()
    async with running_engine(site) as engine:
        await engine.override(run, finding_pb2.RULE_LEFTOVER_JINJA_MARKER)
        await _lines(engine, run)
