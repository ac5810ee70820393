"""[creation-json] durable updates of one creation.json a second, one after another.

The peer is what a careful script does with the same package and the same guarantees, without types, checks or unknown
fields to keep in mind: filelock around reading, changing one field, writing a temporary file, fsync, replace, and fsync
of the folder.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from filelock import FileLock

from bench.table import Better, Row, Sample
from libs.run_tree.creation_json import mutate_creation
from libs.run_tree.creation_record import SyncStatus

UPDATES = 500
_TARGET_RATIO = 0.9
_IN_TURN = (SyncStatus.SYNCED, SyncStatus.PENDING)
_DOCUMENT = {
    "schema_version": "1.8",
    "created_at": "2026-04-17T14:32:00Z",
    "created_by": "asmith",
    "level": "run",
    "run_kind": "experimental",
    "lims_project": {"uid": "p-1", "short_id": "PROJ-0042", "name_at_creation": "Cortex Q3 Pilot"},
    "template": {"name": "confocal", "version": "2.1", "source_path": "/templates/confocal", "run_scope": "both"},
    "variables": {f"variable_{number}": f"value {number}" for number in range(20)},
    "paths": {"local": "/data/lab/CONFOCAL_01", "nas": "//nas01/lab/CONFOCAL_01"},
    "plugins_applied": [],
    "sync_status": "pending",
    "validation_overrides": [],
}


class Updates:
    """One file, updated by either side in turn."""

    def __init__(self) -> None:
        self._path = Path()

    @asynccontextmanager
    async def file(self) -> AsyncIterator[None]:
        """Beside the benchmark, on the disk that people's checkouts lie on."""
        with tempfile.TemporaryDirectory(prefix="creation-json-", dir=Path(__file__).parent) as folder:
            self._path = Path(folder) / "creation.json"
            self._path.write_text(json.dumps(_DOCUMENT), encoding="utf-8")
            yield

    def ours(self) -> Sample:
        return _timed(lambda status: mutate_creation(self._path, lambda record: record.with_sync_status(status)))

    def peer(self) -> Sample:
        return _timed(self._scripted)

    def _scripted(self, status: SyncStatus) -> None:
        with FileLock(f"{self._path}.lock"):
            document = json.loads(self._path.read_text(encoding="utf-8"))
            document["sync_status"] = status.value
            temporary = f"{self._path}.tmp"
            with open(temporary, "w", encoding="utf-8") as file:
                json.dump(document, file, ensure_ascii=False, separators=(",", ":"))
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._path)
            folder = os.open(self._path.parent, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)


def _timed(update: Callable[[SyncStatus], object]) -> Sample:
    began = time.perf_counter()
    for number in range(UPDATES):
        update(_IN_TURN[number % 2])
    return Sample(UPDATES / (time.perf_counter() - began))


_updates = Updates()
ROW = Row(
    name="creation-json",
    unit="updates/s",
    better=Better.HIGHER,
    target=_TARGET_RATIO,
    peer="filelock + temporary file + fsync + replace, by hand",
    run_ours=_updates.ours,
    run_peer=_updates.peer,
    around=_updates.file,
    rounds=5,
)
