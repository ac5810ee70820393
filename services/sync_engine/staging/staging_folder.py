"""What lies below the staging root: equipment, their runs, and how far each has arrived. Blocking; changes nothing."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from libs.run_tree.atomic_file import read_in_folder
from libs.run_tree.beneath import folder_beneath, names_beneath
from libs.run_tree.creation_errors import CreationError
from libs.run_tree.creation_json import creation_path, read_creation
from libs.run_tree.equipment_record import equipment_record_path, read_equipment_record
from libs.run_tree.find_runs import find_runs
from libs.run_tree.json_value import JsonValue
from libs.run_tree.manifest import CACHE_FOLDER
from libs.run_tree.record_file import RecordError
from libs.run_tree.run_path import RunPath, equipment_id_problem
from libs.service_kit.equipment_settings import CompletenessSignal
from services.sync_engine.staging.completeness import Arrival, Signal, signal_of_block
from services.sync_engine.staging.leftovers import leftover_problem
from services.sync_engine.transfer.source_tree import scan_run
from services.sync_engine.transfer.transport import EntryKind, SourceEntry, TransferError


@dataclass(frozen=True, slots=True)
class SightedRun:
    """A run's folder. `arrival` None: it wasn't looked into, or `problem` says why it can't be."""

    path: RunPath
    folder: Path
    signal: Signal | None = None
    arrival: Arrival | None = None
    problem: str = ""

    @property
    def identity(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class SightedEquipment:
    """An equipment's folder. Label, host and signal as the runs in it, or its equipment.json, tell them; may be empty
    and None."""

    equipment_id: str
    configured: bool
    label: str = ""
    host: str = ""
    signal: Signal | None = None


@dataclass(frozen=True, slots=True)
class StagingLook:
    """One look, sorted."""

    equipment: Sequence[SightedEquipment] = ()
    runs: Sequence[SightedRun] = ()


Configured = Callable[[str], tuple[str, Signal] | None]
"""An equipment's configured label and signal; None when the configuration doesn't name it."""


class LookInto(Enum):
    """How closely a run is looked at."""

    EVERYTHING = "everything"
    PRESENCE = "presence"
    LEFTOVERS = "leftovers"


def staged_equipment(staging_root: Path) -> list[str]:
    """Names of the folders that are equipment ids, sorted; empty when there is no such root. OSError."""
    try:
        with names_beneath(os.path.realpath(staging_root)) as entries:
            names = [e.name for e in entries if e.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    return sorted(name for name in names if equipment_id_problem(name) is None)


def look_at_staging(staging_root: Path, configured: Configured, depth: Callable[[str], LookInto]) -> StagingLook:
    """Every run, each as closely as `depth` says. OSError when a folder above the runs can't be listed."""
    staging_root = Path(os.path.realpath(staging_root))
    equipment: list[SightedEquipment] = []
    runs: list[SightedRun] = []
    for equipment_id in staged_equipment(staging_root):
        paths = [path for path in find_runs(staging_root, equipment_id) if _can_be_named(path)]
        known = configured(equipment_id)
        if known is not None:
            equipment.append(SightedEquipment(equipment_id, True, known[0], signal=known[1]))
        else:
            equipment.append(_discovered(staging_root, equipment_id, paths))
        for path in paths:
            folder = staging_root / str(path)
            match depth(str(path)):
                case LookInto.EVERYTHING:
                    signal = known[1] if known is not None else signal_of_block(_orchestrator(folder))
                    runs.append(_arriving(path, folder, signal))
                case LookInto.LEFTOVERS:
                    runs.append(SightedRun(path, folder, problem=leftover_problem(folder)))
                case LookInto.PRESENCE:
                    runs.append(SightedRun(path, folder))
    return StagingLook(equipment, sorted(runs, key=lambda run: run.identity))


def _can_be_named(path: RunPath) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        # Nobody could ask for it; its findings tell of it.
        return False
    return True


def _discovered(staging_root: Path, equipment_id: str, paths: Sequence[RunPath]) -> SightedEquipment:
    label, host, signal = "", "", None
    if paths:
        block = _orchestrator(staging_root / str(paths[-1]))
        label, host, signal = _text(block, "equipment_label"), _text(block, "host"), signal_of_block(block)
    if not label:
        try:
            label = read_equipment_record(equipment_record_path(staging_root / equipment_id)).label
        except RecordError:
            # Its absence is legal; what is wrong with it is a finding of its own.
            label = ""
    return SightedEquipment(equipment_id, False, label, host, signal)


def _orchestrator(folder: Path) -> Mapping[str, JsonValue]:
    try:
        block = read_creation(creation_path(folder)).raw.get("orchestrator")
    except CreationError:
        return {}
    return block if isinstance(block, dict) else {}


def _text(block: Mapping[str, JsonValue], key: str) -> str:
    value = block.get(key)
    return value if isinstance(value, str) else ""


def _arriving(path: RunPath, folder: Path, signal: Signal | None) -> SightedRun:
    try:
        entries = scan_run(folder)
        manifest = _manifest(folder, signal)
    except TransferError as error:
        return SightedRun(path, folder, signal, problem=error.message)
    return SightedRun(path, folder, signal, _arrival(entries, manifest))


def _manifest(folder: Path, signal: Signal | None) -> bytes | None:
    if signal is None or signal.kind is not CompletenessSignal.MANIFEST:
        return None
    try:
        place = folder / signal.file_name
        with folder_beneath(place.parent) as opened:
            return read_in_folder(opened, place)
    except OSError:
        # Not there yet, or not to be read: either way it says nothing.
        return None


def _arrival(entries: Sequence[SourceEntry], manifest: bytes | None) -> Arrival:
    digest = hashlib.sha256(manifest or b"")
    sizes: dict[str, int] = {}
    files = nbytes = 0
    for entry in entries:
        is_folder = entry.kind is EntryKind.DIRECTORY
        times = () if is_folder else (entry.size, entry.mtime_ns, entry.ctime_ns, entry.link_target)
        digest.update(repr((entry.path, entry.kind.value, times)).encode())
        if entry.kind is EntryKind.FILE:
            sizes[os.fsdecode(entry.path)] = entry.size
        if not is_folder and not entry.path.startswith(CACHE_FOLDER + b"/"):
            files += 1
            nbytes += entry.size
    return Arrival(digest.hexdigest(), sizes, files, nbytes, manifest)
