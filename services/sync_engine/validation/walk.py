"""Audit mode: the rules applied to runs as they lie on disk (SPEC §3). A walk changes nothing and follows no
symlink.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from libs.run_tree.creation_errors import CreationError
from libs.run_tree.creation_json import creation_path, read_creation
from libs.run_tree.creation_record import CreationRecord
from libs.run_tree.find_runs import CACHE_FOLDER_NAME, find_runs
from libs.run_tree.run_path import RunPath
from services.sync_engine.validation.content_scan import ContentScan, RenderedFiles, scan_content
from services.sync_engine.validation.finding import Finding, OffendingKind, in_order
from services.sync_engine.validation.rules import RuleMatch, check_mode, check_name

__all__ = ["ContentScan", "ScopeAudit", "WalkError", "audit_run", "audit_scope"]


class WalkError(Exception):
    """A run, or something in it, can't be read, so nothing can be said about it. `path` is relative to `local_root`."""

    def __init__(self, path: str, error: OSError) -> None:
        super().__init__(f"{path} can't be read: {error.strerror}")
        self.path = path
        self.message = str(self)


@dataclass(frozen=True, slots=True)
class ScopeAudit:
    """The findings of one run with its creation.json (None when it is missing or unreadable); or, with `run` None,
    those of the folders above the runs."""

    run: RunPath | None
    creation: CreationRecord | None
    findings: tuple[Finding, ...]


def audit_run(local_root: Path, run: RunPath, settings: ContentScan, creation: CreationRecord | None) -> list[Finding]:
    """Every finding of a fresh walk of one run, from its equipment's folder downwards, in order.

    WalkError when the run or a folder in it can't be read.
    """
    return in_order([*_above(run), *_within(local_root, run, settings, creation)])


def audit_scope(
    local_root: Path, *, equipment_id: str, settings: ContentScan, project: str | None = None
) -> Iterator[ScopeAudit]:
    """The runs of an equipment, or of one of its projects, one by one, each with what a fresh walk finds in it; last
    the folders above them, each finding once. WalkError as `audit_run`."""
    above: list[Finding] = []
    try:
        for run in find_runs(local_root, equipment_id, project):
            creation = _creation_of(local_root, run)
            yield ScopeAudit(run, creation, tuple(in_order(_within(local_root, run, settings, creation))))
            above += _above(run)
    except OSError as error:
        raise WalkError(equipment_id, error) from error
    yield ScopeAudit(None, None, tuple(in_order(above)))


def _creation_of(local_root: Path, run: RunPath) -> CreationRecord | None:
    try:
        return read_creation(creation_path(local_root / str(run)))
    except CreationError:
        # A finding of its own in the whole table of rules; the five rules here can do without.
        return None


def _above(run: RunPath) -> Iterator[Finding]:
    path = ""
    for segment in (run.equipment_id, run.project, run.group):
        if segment:
            path = f"{path}/{segment}" if path else segment
            yield from _findings("", path, OffendingKind.DIRECTORY_SEGMENT, check_name(segment))


def _within(
    local_root: Path, run: RunPath, settings: ContentScan, creation: CreationRecord | None
) -> Iterator[Finding]:
    identity = str(run)
    mode = check_mode(run, creation.run_kind if creation else None)
    own = [*check_name(run.leaf), *([mode] if mode else [])]
    yield from _findings(identity, identity, OffendingKind.DIRECTORY_SEGMENT, own)
    rendered = RenderedFiles(creation)
    folders = [""]
    while folders:
        folder = folders.pop()
        subfolders, files = _listing(local_root, identity, folder)
        prefix = f"{identity}/{folder}/" if folder else f"{identity}/"
        for name in subfolders:
            yield from _findings(identity, prefix + name, OffendingKind.DIRECTORY_SEGMENT, check_name(name))
            folders.append(f"{folder}/{name}" if folder else name)
        for name in files:
            yield from _findings(identity, prefix + name, OffendingKind.FILE_NAME, check_name(name))
        for name in rendered.among(folder, files):
            matches = _content_matches(local_root, prefix + name, settings)
            yield from _findings(identity, prefix + name, OffendingKind.FILE_CONTENT, matches)


def _listing(local_root: Path, identity: str, folder: str) -> tuple[list[str], list[str]]:
    subfolders: list[str] = []
    files: list[str] = []
    relative = f"{identity}/{folder}" if folder else identity
    try:
        with os.scandir(local_root / relative) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    files.append(entry.name)
                elif folder or entry.name != CACHE_FOLDER_NAME:
                    subfolders.append(entry.name)
    except FileNotFoundError as error:
        # A subfolder that vanished meanwhile holds no finding; a run that isn't there can't be audited.
        if not folder:
            raise WalkError(_shown(relative), error) from error
    except OSError as error:
        raise WalkError(_shown(relative), error) from error
    return subfolders, files


def _content_matches(local_root: Path, path: str, settings: ContentScan) -> list[RuleMatch]:
    place = os.fsencode(local_root / path)
    try:
        return scan_content(place, settings)
    except FileNotFoundError:
        return []
    except OSError as error:
        if _is_symlink(place):
            return []
        raise WalkError(_shown(path), error) from error


def _is_symlink(place: bytes) -> bool:
    try:
        return stat.S_ISLNK(os.lstat(place).st_mode)
    except FileNotFoundError:
        return False


def _shown(path: str) -> str:
    """A path for people: what isn't UTF-8 on disk shows U+FFFD."""
    return os.fsencode(path).decode("utf-8", errors="replace")


def _findings(run_path: str, path: str, kind: OffendingKind, matches: Iterable[RuleMatch]) -> Iterator[Finding]:
    display, exact = _shown(path), os.fsencode(path)
    for match in matches:
        yield Finding(
            rule=match.rule,
            tier=match.rule.tier,
            run_path=_shown(run_path),
            offending_path=display,
            offending_kind=kind,
            matched_token=match.token,
            rule_detail=_shown(match.detail),
            offending_path_bytes=b"" if display.encode("utf-8") == exact else exact,
        )
