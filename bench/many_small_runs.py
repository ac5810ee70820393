"""Runs for the rows that queue many at once: 200 of 20 files of 10 KiB, in the folders of one or more equipment."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from pathlib import Path

RUNS, FILES, FILE_BYTES = 200, 20, 10 * 1024
_PROJECT = "Cortex Q3 Pilot"


def make_runs(lab: Path, equipment: Sequence[str], count: int = RUNS, files: int = FILES) -> list[str]:
    """Makes the runs, spread over the equipment, and gives their paths below `lab`."""
    runs = []
    for number in range(count):
        leaf = f"Run_2026-04-{1 + number // 1440:02}T{number // 60 % 24:02}-{number % 60:02}"
        run = f"{equipment[number % len(equipment)]}/{_PROJECT}/Runs/{leaf}"
        cache = lab / run / ".exlab-wizard"
        cache.mkdir(parents=True)
        (cache / "creation.json").write_text(json.dumps(_creation()), encoding="utf-8")
        for name in range(files):
            (lab / run / f"tile{name:02}.tif").write_bytes(secrets.token_bytes(FILE_BYTES))
        runs.append(run)
    return runs


def _creation() -> dict[str, object]:
    return {
        "schema_version": "1.8",
        "created_at": "2026-04-17T14:32:00Z",
        "created_by": "asmith",
        "level": "run",
        "lims_project": {"uid": "p-1", "short_id": "PROJ-0042", "name_at_creation": _PROJECT},
        "template": {"name": "confocal", "version": "2.1", "source_path": "/nowhere", "run_scope": "both"},
        "variables": {},
        "paths": {"local": "", "nas": ""},
    }
