"""Audit mode above the runs: the folders of equipment and projects, their names and cache files (SPEC §3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from libs.run_tree.beneath import is_folder_beneath, names_beneath
from libs.run_tree.equipment_record import equipment_record_path, read_equipment_record
from libs.run_tree.find_runs import CACHE_FOLDER_NAME
from libs.run_tree.group_record import group_record_path, read_group_record
from libs.run_tree.record_file import RecordError, RecordMissingError
from libs.run_tree.run_path import RunKind, RunPath
from services.sync_engine.validation.finding import Finding, OffendingKind, in_order
from services.sync_engine.validation.rules import check_name
from services.sync_engine.validation.soft_rules import check_project_name, missing_lims_project, unreadable_folder
from services.sync_engine.validation.walk import AuditRules, creation_in, findings_at, folder_in_root, readme_findings


@dataclass(frozen=True, slots=True)
class FolderAudit:
    """What was found in a project folder and above it, without its runs."""

    findings: tuple[Finding, ...]


def names_above(run: RunPath) -> list[Finding]:
    """What is wrong with the names of the folders above a run, from its equipment downwards."""
    findings: list[Finding] = []
    path = ""
    for segment in (run.equipment_id, run.project, run.group):
        if segment:
            path = f"{path}/{segment}" if path else segment
            findings += findings_at("", path, OffendingKind.DIRECTORY_SEGMENT, check_name(segment))
    return findings


def audit_equipment(local_root: Path, equipment_id: str) -> FolderAudit:
    """An equipment's own folder, without its projects: its cache file, and the files that lie beside the projects.
    WalkError when it leads out of its root, which is real."""
    equipment = folder_in_root(local_root, equipment_id)
    findings = [
        *_record_findings(equipment_id, equipment_record_path(equipment), read_equipment_record),
        *_beside(equipment, equipment_id, _is_project),
    ]
    return FolderAudit(tuple(in_order(findings)))


def audit_project(local_root: Path, equipment_id: str, project: str, rules: AuditRules) -> FolderAudit:
    """A project's own folder: its name, its cache files, and the names of the folders that hold its runs.
    WalkError when it leads out of its root, which is real."""
    path = f"{equipment_id}/{project}"
    folder = folder_in_root(local_root, path)
    own = [*check_name(project), *check_project_name(project)]
    creation, about_creation = creation_in(folder)
    own += about_creation
    if creation is not None:
        own += missing_lims_project(creation)
    findings = [
        *findings_at("", equipment_id, OffendingKind.DIRECTORY_SEGMENT, check_name(equipment_id)),
        *findings_at("", path, OffendingKind.DIRECTORY_SEGMENT, own),
        *readme_findings("", path, folder, rules),
        *_record_findings(
            equipment_id, equipment_record_path(folder_in_root(local_root, equipment_id)), read_equipment_record
        ),
    ]
    for kind in RunKind:
        group = folder / kind.group
        if is_folder_beneath(group):
            findings += _beside(group, f"{path}/{kind.group}", _is_run)
            findings += _record_findings(f"{path}/{kind.group}", group_record_path(group, kind), read_group_record)
    return FolderAudit(tuple(in_order(findings)))


def _record_findings(above: str, path: Path, read: Callable[[Path], object]) -> Iterator[Finding]:
    """A cache file of the folder `above` runs that is there and can't be used; its absence is legal."""
    try:
        read(path)
    except RecordMissingError:
        return
    except RecordError as error:
        where = f"{above}/{CACHE_FOLDER_NAME}/{path.name}"
        reason = error.message.replace(str(path), path.name).removesuffix(".")
        yield from findings_at("", where, OffendingKind.FILE_CONTENT, [unreadable_folder(reason)])


def _beside(place: Path, folder: str, is_looked_at: Callable[[str, bool], bool]) -> Iterator[Finding]:
    """Names in a folder of the tree that no walk of its own looks at; `folder` is its path below `local_root`.
    `is_looked_at`: of (name, whether it is a folder) those that have one."""
    try:
        with names_beneath(place) as entries:
            names = [(e.name, e.is_dir(follow_symlinks=False)) for e in entries]
    except FileNotFoundError:
        return
    except OSError as error:
        refused = unreadable_folder(str(error.strerror))
        yield from findings_at("", folder, OffendingKind.DIRECTORY_SEGMENT, [refused])
        return
    for name, is_folder in names:
        if not is_looked_at(name, is_folder):
            kind = OffendingKind.DIRECTORY_SEGMENT if is_folder else OffendingKind.FILE_NAME
            yield from findings_at("", f"{folder}/{name}", kind, check_name(name))


def _is_run(name: str, _is_folder: bool) -> bool:
    return RunKind.of_leaf(name) is not None


def _is_project(_name: str, is_folder: bool) -> bool:
    return is_folder
