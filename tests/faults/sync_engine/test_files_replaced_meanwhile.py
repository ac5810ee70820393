"""No content is deleted that isn't the one that was looked at, whoever replaces files meanwhile or kills the engine."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import grpc
import pytest

from labferry.events.v1 import run_events_pb2
from tests.faults.sync_engine import meddled_engine
from tests.faults.sync_engine.meddling import start_meddled
from tests.integration.sync_engine.running_engine import PATIENCE, Engine, Site, running_engine
from tests.integration.sync_engine.test_cleanup import clean, data_files, lacking

FILES = 40
ENDED = "sync.run.cleanup_ended.v1"


@pytest.fixture
def run(site: Site) -> str:
    """May be cleaned as soon as its copy is sealed."""
    site.lab.settings["nas_cleanup"] = {"enabled": True, "min_verify_passes": 1, "min_age_hours": 0}
    return site.make_run({f"sub/{number:02}.raw": b"measured %02d" % number for number in range(FILES)})


async def _bring_meddled(site: Site, run: str, **plan: list[str]) -> Engine:
    engine = await start_meddled(site, **plan)
    await engine.enqueue(run)
    return engine


async def _bring_and_die(site: Site, run: str) -> None:
    engine = await _bring_meddled(site, run, die_before_unlink=["07.raw"])
    async with asyncio.timeout(PATIENCE):
        await engine.service.process.wait()
    assert not (site.local(run) / "sub/07.raw").exists()
    assert len(_aside(site.local(run))) == 1


async def _ended(engine: Engine, run: str) -> run_events_pb2.RunCleanupEnded:
    await engine.until_event(f"run-{run}", ENDED)
    told = run_events_pb2.RunCleanupEnded()
    last = [e for e in await engine.events() if e.type == ENDED][-1]
    assert last.payload.Unpack(told)
    return told


def _aside(folder: Path) -> list[str]:
    return [p.name for p in (folder / ".exlab-wizard").iterdir() if p.name.startswith("cleanup.")]


async def test_each_file_that_is_replaced_meanwhile_keeps_its_new_content(site: Site, run: str) -> None:
    names = [f"{number:02}.raw" for number in range(FILES)]
    # More than one file in twenty that isn't what the ticket says would end the deletion.
    moved = [names[5], names[25]]
    engine = await _bring_meddled(
        site, run, replace_before_move=moved, replace_before_unlink=[name for name in names if name not in moved]
    )
    try:
        told = await _ended(engine, run)
        here = {p.name: p.read_bytes() for p in (site.local(run) / "sub").iterdir()}
        assert here == {name: meddled_engine.NEW + name.encode() for name in names}
        assert (told.cleaned, told.remaining_count, told.file_count) == (False, FILES, FILES - len(moved))
        why = {left.path: left.why for left in told.remaining}
        assert [why[f"sub/{name}"] for name in moved] == 2 * ["another file has taken its place"]
        assert _aside(site.local(run)) == []
    finally:
        await engine.service.stop()


async def test_a_kill_while_a_file_is_set_aside_puts_it_back_at_the_next_start(site: Site, run: str) -> None:
    await _bring_and_die(site, run)
    async with running_engine(site) as engine:
        told = await _ended(engine, run)
        assert (told.interrupted, told.gone_count, told.remaining_count) == (True, 7, FILES - 7)
        with contextlib.suppress(grpc.aio.AioRpcError):
            assert (await clean(engine, run)).cleaned
        await site.until_sync_status(run, "cleaned")
        assert data_files(site.local(run)) == set()
        assert _aside(site.local(run)) == []
        assert len(data_files(site.at_nas(run))) == FILES


async def test_after_a_kill_a_file_whose_name_was_taken_is_kept_beside_the_new_one(site: Site, run: str) -> None:
    await _bring_and_die(site, run)
    (site.local(run) / "sub/07.raw").write_bytes(b"written meanwhile")
    async with running_engine(site) as engine:
        told = await _ended(engine, run)
        (aside,) = _aside(site.local(run))
        (kept,) = [left for left in told.remaining if left.path == "sub/07.raw"]
        assert "another file took its name meanwhile" in kept.why
        assert aside in kept.why
        assert told.remaining_count == FILES - 7
        assert (site.local(run) / f".exlab-wizard/{aside}").read_bytes() == b"measured 07"
        assert (site.local(run) / "sub/07.raw").read_bytes() == b"written meanwhile"
        assert lacking(await clean(engine, run)) >= {"local_files_unchanged"}
