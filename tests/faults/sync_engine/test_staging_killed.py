"""An engine that dies between an event of a staged run and its line in ingest.json: the next one writes it, once."""

from __future__ import annotations

import json

import pytest

from tests.integration.sync_engine.running_engine import Engine, Site, running_engine, same_tree, start_engine
from tests.integration.sync_engine.staging_site import CLEARED, IN_ORDER, VERIFIED, push, stage, until_state
from tests.integration.sync_engine.test_staging_clearing import clear

EVENTS = ("discovered", "completed", "queued", "verified", "cleared")


async def _until_dead(engine: Engine) -> None:
    assert await engine.service.ended() == -9


@pytest.mark.slow
async def test_at_each_state(site: Site) -> None:
    stage(site)
    site.lab.settings["nas_cleanup"] = {"enabled": True, "min_verify_passes": 1, "min_age_hours": 0}
    pushed = push(site)
    pushed.finish()
    for number, event in enumerate(EVENTS):
        death = {
            "type": f"sync.staging.{event}.v1",
            "side": "after",
            "count": 1,
            "run": pushed.run,
            "streams": [f"staged-{pushed.run}"],
        }
        (site.lab.folder / "death.json").write_text(json.dumps(death), encoding="utf-8")
        engine = await start_engine(site, module="tests.faults.sync_engine.dying_engine")
        if event == "cleared":
            done = await until_state(engine, pushed.run, VERIFIED)
            await engine.until_sealed(done.job_ids[0])
            same_tree(pushed.folder, site.at_nas(pushed.run))
            with pytest.raises(Exception, match="UNAVAILABLE"):
                await clear(engine, pushed)
        await _until_dead(engine)
        there = pushed.states_in_file()
        assert there == IN_ORDER[: len(there)]
        assert len(there) <= number, "the event is there, its line is not"
    async with running_engine(site) as engine:
        await until_state(engine, pushed.run, CLEARED)
        types = [t for t in await engine.event_types(f"staged-{pushed.run}") if "held" not in t]
        assert types == [f"sync.staging.{event}.v1" for event in EVENTS], "no step twice"
        await pushed.until_mirrored("cleared")
    assert pushed.states_in_file() == IN_ORDER
