"""A workstation whose instruments push their runs into a staging root, and what an instrument does there."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labferry.sync.v1 import staging_service_pb2 as pb
from tests.integration.sync_engine.running_engine import (
    EQUIPMENT,
    PATIENCE,
    PROJECT,
    Engine,
    Site,
    creation_document,
)

FLAG = "acquisition_complete.flag"
SETTLE_SECONDS = 0.2
STAGING, COMPLETE, QUEUED, VERIFIED, CLEARED = (
    pb.STAGING_STATE_STAGING,
    pb.STAGING_STATE_COMPLETE,
    pb.STAGING_STATE_SYNC_QUEUED,
    pb.STAGING_STATE_SYNC_VERIFIED,
    pb.STAGING_STATE_CLEARED,
)
ALL_STATES = (STAGING, COMPLETE, QUEUED, VERIFIED, CLEARED)
IN_ORDER = ["staging", "complete", "sync_queued", "sync_verified", "cleared"]


@dataclass(frozen=True)
class Pushed:
    """A run below the staging root, as its instrument sees it."""

    run: str
    folder: Path

    def write(self, name: str, content: bytes = b"pixels") -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def created(self, **fields: Any) -> None:
        """Its creation.json, as the wizard on the instrument's machine writes it."""
        self.write(".exlab-wizard/creation.json", json.dumps(creation_document(**fields)).encode())

    def finish(self, name: str = FLAG) -> None:
        self.write(name, b"")

    def ingest(self) -> dict[str, Any]:
        path = self.folder / ".exlab-wizard" / "ingest.json"
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"history": []}
        return document

    def states_in_file(self) -> list[str]:
        return [entry["state"] for entry in self.ingest()["history"]]

    async def until_mirrored(self, state: str) -> None:
        """The file follows the log: it says so soon, though perhaps not yet."""
        async with asyncio.timeout(PATIENCE):
            while self.ingest().get("current_state") != state:
                await asyncio.sleep(0.02)


def stage(site: Site, **orchestrator: Any) -> Path:
    """Configures a staging root, and makes it."""
    root = site.lab.folder / "staging"
    root.mkdir(exist_ok=True)
    site.lab.settings["orchestrator"] = {
        "staging_root": str(root),
        "settle_seconds": SETTLE_SECONDS,
        **orchestrator,
    }
    return root


def push(
    site: Site,
    files: Mapping[str, bytes] | None = None,
    *,
    leaf: str = "Run_2026-04-17T14-32",
    group: str = "Runs",
    equipment: str = EQUIPMENT,
    **creation: Any,
) -> Pushed:
    """A run that has begun to arrive: with its creation.json and these files, and without its flag."""
    run = f"{equipment}/{PROJECT}/{group}/{leaf}"
    pushed = Pushed(run, site.lab.folder / "staging" / run)
    pushed.created(**creation)
    for name, content in (files if files is not None else {"a.tif": b"pixels", "sub/b.csv": b"1,2\n"}).items():
        pushed.write(name, content)
    return pushed


async def staged_run(engine: Engine, run: str) -> pb.StagedRun | None:
    found = [r for r in (await engine.staged(states=ALL_STATES)).runs if r.run == run]
    return found[0] if found else None


async def until_staged(engine: Engine, run: str, wanted: Callable[[pb.StagedRun], bool]) -> pb.StagedRun:
    """Asks until the run is what is wanted; fails loudly when it never is."""
    last: pb.StagedRun | None = None
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                last = await staged_run(engine, run)
                if last is not None and wanted(last):
                    return last
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"waited in vain; it is {last}") from None


async def until_state(engine: Engine, run: str, state: int) -> pb.StagedRun:
    return await until_staged(engine, run, lambda r: r.state == state)


async def until_held(engine: Engine, run: str, hold: int) -> pb.StagedRun:
    return await until_staged(engine, run, lambda r: r.hold == hold)


async def looks(engine: Engine) -> None:
    """Until the intake has looked twice more: folders that were not there at the last look are seen."""
    for _ in range(2):
        marker = f"MARKER/{PROJECT}/Runs/Run_{uuid.uuid4()}"
        folder = engine.site.lab.folder / "staging" / marker
        folder.mkdir(parents=True)
        await until_staged(engine, marker, lambda r: True)
        folder.rmdir()
