"""What travels with a run beside its data: cache folders with all they hold, and nothing of others is written over."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from labferry.events.v1 import event_log_service_pb2, job_events_pb2
from labferry.sync.v1 import job_pb2, run_pb2
from services.sync_engine.event_types import job_stream
from tests.integration.sync_engine.running_engine import PATIENCE, Engine, Site, running_engine, same_tree
from tests.integration.sync_engine.test_cleanup import verify

CACHE = ".exlab-wizard"


def _write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


async def test_the_cache_folders_above_a_run_travel_with_their_folders(engine: Engine) -> None:
    site = engine.site
    run = site.make_run()
    above = site.local(run).parents[2]
    inside = ("templates/confocal/t.jinja", "equipment.json", "templates/wizard.a.log/notes.txt")
    for name in inside:
        _write(above / CACHE / name, name)
        _write(above / "Cortex Q3 Pilot" / CACHE / name, name)
    (above / CACHE / "templates" / "link").symlink_to("/etc/passwd")
    _write(above / CACHE / "equipment.json.lock", "")
    job_id = (await engine.enqueue(run)).job.job_id
    await engine.until_sealed(job_id)
    for name in inside:
        assert (site.nas() / CACHE / name).read_text(encoding="utf-8") == name
        assert (site.nas() / "Cortex Q3 Pilot" / CACHE / name).read_text(encoding="utf-8") == name
    assert not (site.nas() / CACHE / "templates" / "link").is_symlink()
    assert not (site.nas() / CACHE / "equipment.json.lock").exists()


async def test_a_folder_that_is_called_like_a_changing_file_is_data(engine: Engine) -> None:
    site = engine.site
    run = site.make_run()
    names = ("wizard.old.log/inner.txt", "receipt.mine.json/a/b.txt", "x.lock/c.txt", "creation.json.d/e.txt")
    for name in names:
        _write(site.local(run) / CACHE / name, name)
    job_id = (await engine.enqueue(run)).job.job_id
    job = await engine.until_sealed(job_id)
    same_tree(site.local(run), site.at_nas(run))
    for name in names:
        assert (site.at_nas(run) / CACHE / name).read_text(encoding="utf-8") == name
    assert job.file_count == 2 + len(names)


async def test_what_others_wrote_at_the_destination_is_kept_when_a_run_is_sealed_first(engine: Engine) -> None:
    site = engine.site
    run = site.make_run()
    _write(site.local(run) / CACHE / "readme_fields.json", "{}")
    theirs = {"creation.json": "theirs", "readme_fields.json": "theirs too", "checksums.sha256": "and theirs"}
    for name, content in theirs.items():
        _write(site.at_nas(run) / CACHE / name, content)
    job_id = (await engine.enqueue(run)).job.job_id
    job = await engine.until_sealed(job_id)
    same_tree(site.local(run), site.at_nas(run))
    kept = site.nas() / ".labferry-superseded" / f"{job_id}-{job.attempt}" / site.at_nas(run).relative_to(site.nas())
    assert {path.name: path.read_text(encoding="utf-8") for path in (kept / CACHE).iterdir()} == theirs
    # What this engine sealed itself is its own: sealed again, it is replaced.
    _write(site.local(run) / CACHE / "readme_fields.json", '{"later": 1}')
    _write(site.local(run) / "later.tif", "later")
    await engine.until_sealed((await engine.enqueue(run)).job.job_id)
    same_tree(site.local(run), site.at_nas(run))
    assert len(list((site.nas() / ".labferry-superseded").iterdir())) == 1


async def test_seals_that_go_on_together_are_in_nobodys_way(site: Site) -> None:
    """Each seal writes to the cache folder that those of the run's other destinations read, and the last proof changes
    what all of them have to say."""
    names = ("nas", "second", "third")
    places = {name: site.nas(destination=name) for name in names}
    for place in places.values():
        place.mkdir(parents=True, exist_ok=True)
    site.lab.settings["equipment"].clear()
    transports = {name: {"type": "mounted", "path": str(place)} for name, place in places.items()}
    destinations = [{"name": name, "transport": transport} for name, transport in transports.items()]
    site.equip(destinations=destinations, max_parallel=3)
    runs = [site.make_run(leaf=f"Run_2026-04-17T14-{minute:02d}") for minute in range(40)]
    async with running_engine(site) as engine:
        jobs = {job.job_id for run in runs for job in (await engine.enqueue(run)).jobs}
        await _sealed_as_synced_without_a_wait(engine, jobs)
    for run in runs:
        for name in names:
            creation = site.at_nas(run, name) / CACHE / "creation.json"
            assert json.loads(creation.read_bytes())["sync_status"] == "synced"


async def test_nothing_is_sealed_where_the_copy_is_not(site: Site) -> None:
    """A destination's path was changed after the copy was verified, and before its last seal."""

    def places(**paths: str) -> None:
        site.lab.settings["equipment"].clear()
        transports = {name: {"type": "mounted", "path": str(site.nas(destination=at))} for name, at in paths.items()}
        site.equip(destinations=[{"name": name, "transport": transport} for name, transport in transports.items()])

    run = site.make_run()
    places(nas="nas", late="late")
    async with running_engine(site) as engine:
        nas, late = (job.job_id for job in (await engine.enqueue(run)).jobs)
        await engine.until_sealed(nas)
    for name in ("elsewhere", "late"):
        (site.nas(destination=name) / ".labferry-incoming").mkdir(parents=True)
    _write(site.at_nas(run, "elsewhere") / CACHE / "creation.json", "theirs")
    places(nas="elsewhere", late="late")
    async with running_engine(site) as engine:
        await engine.until_sealed(late)
        held = await engine.until_waiting(nas, job_pb2.WAIT_CONDITION_OPERATOR)
        assert "copy is not at the place that nas names now" in held.waiting_on[0].detail
    assert [p.name for p in site.at_nas(run, "elsewhere").rglob("*") if p.is_file()] == ["creation.json"]
    assert (site.at_nas(run, "elsewhere") / CACHE / "creation.json").read_text(encoding="utf-8") == "theirs"
    places(nas="nas", late="late")
    async with running_engine(site) as engine:
        # What an operator does who has put it right, and doesn't want to wait for the next try.
        await verify(engine, run)
        held = await engine.until(nas, lambda update: not update.job.waiting_on)
    creation = site.at_nas(run) / CACHE / "creation.json"
    assert json.loads(creation.read_bytes())["sync_status"] == "synced"


async def _sealed_as_synced_without_a_wait(engine: Engine, jobs: set[str]) -> None:
    unsealed = {job_stream(job_id) for job_id in jobs}
    request = event_log_service_pb2.SubscribeEventsRequest(after_position=0, stream_prefix="job-")
    following = engine.log.SubscribeEvents(request)
    async with asyncio.timeout(PATIENCE):
        async for step in following:
            for event in step.events.events:
                sealed, waits = job_events_pb2.JobSealed(), job_events_pb2.JobWaiting()
                assert not event.payload.Unpack(waits), waits
                if event.payload.Unpack(sealed) and sealed.sync_status == run_pb2.SYNC_STATUS_SYNCED:
                    unsealed.discard(event.stream)
            if not unsealed:
                following.cancel()
                return
