"""Starts a sync engine beside which something happens at the worst moments of a deletion (`meddled_engine`)."""

from __future__ import annotations

import json

from tests.faults.sync_engine import meddled_engine
from tests.integration.sync_engine.running_engine import Engine, Site, start_engine

_MOMENTS = ("die_before_unlink", "replace_before_unlink", "replace_before_move", "tombstone_before_unlink")


async def start_meddled(site: Site, **plan: list[str]) -> Engine:
    """`plan`: names of data files, by moment."""
    whole = {**{moment: [] for moment in _MOMENTS}, **plan}
    (site.lab.folder / "meddling.json").write_text(json.dumps(whole), encoding="utf-8")
    return await start_engine(site, module=meddled_engine.__name__)
