"""Makes runs as an acquisition workstation leaves them: the layout of SPEC §1, mixed sizes, awkward names."""

from __future__ import annotations

import json
import os
import random
from datetime import datetime
from pathlib import Path

LEFTOVER_NAME = "notes of {{ operator }}.txt"

_AWKWARD = (
    "with  two spaces.csv",
    "-leading dash.txt",
    "quote's and (brackets) [x].txt",
    "Größe µm – überlagert.txt",
    "試料 3 (完).txt",
    "#hash & ampersand;semicolon.txt",
    "percent%20name$HOME`tick`.txt",
    ".hidden",
    "x" * 240 + ".dat",
)
_MIB = 1 << 20


def make_run(lab: Path, equipment_id: str, project: str, started: datetime, operator: str) -> str:
    """A run of a few hundred files, with a leftover template marker in one name. Returns its path."""
    run = f"{equipment_id}/{project}/Runs/Run_{started:%Y-%m-%dT%H-%M}"
    folder = lab / run
    _write_cache_files(lab, run, equipment_id, project, started, operator)
    content = random.Random(started.isoformat())
    for number in range(240):
        tile = folder / "tiles" / f"z{number // 40:02}" / f"tile_{number:04}.tif"
        _write(tile, content, content.randrange(2_000, 90_000))
    for number in range(4):
        _write(folder / "stacks" / f"channel {number}.ome.tif", content, content.randrange(2 * _MIB, 9 * _MIB))
    for name in _AWKWARD:
        _write(folder / "awkward names" / name, content, content.randrange(1, 3_000))
    _write(folder / LEFTOVER_NAME, content, 120)
    (folder / "empty file.log").touch()
    (folder / "empty folder").mkdir()
    (folder / "stacks" / "latest.ome.tif").symlink_to("channel 3.ome.tif")
    (folder / "README.md").write_text("---\nlabel: Demo run\noperator: " + operator + "\n---\n", encoding="utf-8")
    return run


def make_large_run(lab: Path, equipment_id: str, project: str, started: datetime, operator: str) -> str:
    """A run that takes a few seconds to copy."""
    run = f"{equipment_id}/{project}/Runs/Run_{started:%Y-%m-%dT%H-%M}"
    folder = lab / run
    _write_cache_files(lab, run, equipment_id, project, started, operator)
    content = random.Random(started.isoformat())
    for number in range(72):
        _write(folder / "views" / f"view_{number:02}.h5", content, 4 * _MIB)
    for number in range(150):
        _write(folder / "metadata" / f"frame_{number:04}.json", content, content.randrange(500, 4_000))
    return run


def _write(path: Path, content: random.Random, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.randbytes(size))


def _write_cache_files(lab: Path, run: str, equipment_id: str, project: str, started: datetime, operator: str) -> None:
    stamp = f"{started:%Y-%m-%dT%H:%M:%SZ}"
    folder = lab / run
    base = {"schema_version": "1.0", "project": project, "equipment": equipment_id}
    creation = {"schema_version": "1.8", "created_at": stamp, "created_by": operator}
    template = {"name": "confocal", "version": "2.1", "source_path": "/opt/templates/confocal", "run_scope": "both"}
    lims = {"uid": "0b7c1d2e-0000-4000-8000-000000000042", "short_id": "PROJ-0042", "name_at_creation": project}
    _cache_file(
        lab / equipment_id,
        "equipment.json",
        {"schema_version": "1.0", "id": equipment_id, "label": equipment_id, "configured_local_root": str(lab)},
    )
    _cache_file(
        lab / equipment_id / project,
        "creation.json",
        {**creation, "level": "project", "lims_project": lims, "template": {**template}, "variables": {}, "paths": {}},
    )
    _cache_file(folder.parent, "runs.json", {**base, "created_at": stamp, "run_kind": "experimental"})
    _cache_file(
        folder,
        "creation.json",
        {
            **creation,
            "level": "run",
            "lims_project": lims,
            "template": template,
            "variables": {"operator": operator},
            "paths": {"local": str(folder), "nas": ""},
            "plugins_applied": [],
        },
    )


def _cache_file(folder: Path, name: str, document: dict[str, object]) -> None:
    path = folder / ".exlab-wizard" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")


FileStates = dict[bytes, tuple[int, int]]
"""Size and modification time of each file, by path."""


def files_of(folder: Path) -> FileStates:
    """Every file below a folder with size and modification time: to show that nothing was touched."""
    found: FileStates = {}
    for parent, _, names in os.walk(os.fsencode(folder)):
        for name in names:
            path = os.path.join(parent, name)
            status = os.lstat(path)
            found[os.path.relpath(path, os.fsencode(folder))] = (status.st_size, status.st_mtime_ns)
    return found
