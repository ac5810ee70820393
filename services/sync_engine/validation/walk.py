"""Audit mode: the rules applied to folders as they lie on disk (SPEC §3). A walk changes nothing and follows no
symlink.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from libs.run_tree.atomic_file import read_in_folder
from libs.run_tree.beneath import (
    Place,
    SymlinkOnTheWayError,
    folder_beneath,
    names_beneath,
    real_place,
)
from libs.run_tree.creation_errors import CreationError, CreationMissingError
from libs.run_tree.creation_json import read_creation_of
from libs.run_tree.creation_record import CreationRecord
from libs.run_tree.find_runs import CACHE_FOLDER_NAME
from libs.run_tree.readme_fields import README_FIELDS_NAME, ReadmeFieldsError, parse_readme_fields
from libs.run_tree.run_path import PathOutsideRootError, RunPath, leads_into_run
from services.sync_engine.validation.content_scan import ContentScan, RenderedFiles, scan_content
from services.sync_engine.validation.finding import Finding, OffendingKind, Rule, in_order
from services.sync_engine.validation.looked_at import LookedAt
from services.sync_engine.validation.rules import RuleMatch, check_mode, check_name
from services.sync_engine.validation.soft_rules import (
    ORPHAN,
    missing_lims_project,
    missing_readme_fields,
    unreadable_creation,
    unreadable_folder,
)

_CACHED = tuple(f"/{CACHE_FOLDER_NAME}{name}".encode() for name in ("", "/creation.json", f"/{README_FIELDS_NAME}"))


class WalkError(Exception):
    """A run, or something in it, can't be read, so nothing can be said about it. `path` is relative to `local_root`."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path} can't be read: {reason}")
        self.path = path
        self.message = str(self)


@dataclass(frozen=True, slots=True)
class AuditRules:
    """What the configuration says: which content is looked into, and which README fields must be filled in."""

    scan: ContentScan = field(default_factory=ContentScan)
    required_fields: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class RunAudit:
    """What a walk found in one run, or among a project's own files; its creation.json (None: missing or unreadable);
    and what was looked at."""

    run: RunPath
    creation: CreationRecord | None
    findings: tuple[Finding, ...]
    looked_at: LookedAt


def audit_run(local_root: Path, run: RunPath, rules: AuditRules) -> RunAudit:
    """A fresh walk of one run's folder. What can't be read is a finding; WalkError when the run itself isn't there.
    `local_root` is real."""
    try:
        return _RunWalk(local_root / str(run), run, rules).audit()
    except SymlinkOnTheWayError:
        return _through_symlinks(local_root, run, rules)


def _through_symlinks(local_root: Path, run: RunPath, rules: AuditRules) -> RunAudit:
    folder = folder_in_root(local_root, str(run))
    try:
        return _RunWalk(folder, run, rules).audit()
    except SymlinkOnTheWayError as error:
        raise WalkError(_shown(str(run)), str(error.strerror)) from error


def folder_in_root(local_root: Path, relative: str) -> Path:
    """Where it really lies. WalkError when it leads out of the root."""
    try:
        return real_place(local_root, relative)
    except PathOutsideRootError as error:
        raise WalkError(_shown(relative), str(error)) from error


@dataclass(slots=True)
class _Listing:
    """What a folder holds beside its files, and what is wrong with its names."""

    subfolders: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


class _RunWalk:
    def __init__(self, folder: Path, run: RunPath, rules: AuditRules) -> None:
        self._folder = folder
        self._place = os.fsencode(folder)
        self._run = run
        self._identity = str(run)
        self._rules = rules
        self._looked_at = LookedAt()

    def audit(self) -> RunAudit:
        for cached in _CACHED:
            self._looked_at.note(self._place + cached)
        creation, about_creation = creation_in(self._place)
        below = self._below(RenderedFiles(creation))
        if self._run.is_project:
            # What is wrong with the folder itself is said by `audit_project`, and by `names_above` of each of its runs.
            return RunAudit(self._run, creation, tuple(in_order(below)), self._looked_at)
        mode = check_mode(self._run, creation.run_kind if creation else None)
        own = [*check_name(self._run.leaf), *([mode] if mode else []), *about_creation]
        if creation is not None:
            own += missing_lims_project(creation)
        findings = [
            *findings_at(self._identity, self._identity, OffendingKind.DIRECTORY_SEGMENT, own),
            *readme_findings(self._identity, self._identity, self._folder, self._rules),
            *below,
        ]
        return RunAudit(self._run, creation, tuple(in_order(findings)), self._looked_at)

    def _below(self, rendered: RenderedFiles) -> Iterator[Finding]:
        identity = self._identity
        folders = [""]
        while folders:
            folder = folders.pop()
            prefix = f"{identity}/{folder}/" if folder else f"{identity}/"
            found = _Listing()
            template = rendered.template_folder(folder)
            if template is not None:
                self._looked_at.note(os.fsencode(template))
            try:
                rendered_here = rendered.among(folder, self._files(folder, found))
            except OSError as error:
                if not folder and isinstance(error, SymlinkOnTheWayError):
                    raise
                if not folder and isinstance(error, FileNotFoundError | NotADirectoryError):
                    raise WalkError(_shown(identity), str(error.strerror)) from error
                if not isinstance(error, FileNotFoundError):
                    refused = unreadable_folder(str(error.strerror))
                    yield from findings_at(identity, prefix[:-1], OffendingKind.DIRECTORY_SEGMENT, [refused])
                continue
            yield from found.findings
            folders += [f"{folder}/{name}" if folder else name for name in found.subfolders]
            for name in sorted(rendered_here):
                if self._rules.scan.takes(name):
                    yield from self._content(f"{folder}/{name}" if folder else name)

    def _files(self, folder: str, found: _Listing) -> Iterator[str]:
        """Names of the folder's files, of which there may be any number; all else of its names goes into `found`."""
        self._note(folder)
        above = f"{self._identity}/{folder}" if folder else self._identity
        with names_beneath(self._in_run(folder)) as entries:
            for entry in entries:
                is_folder = entry.is_dir(follow_symlinks=False)
                if is_folder and not folder and self._is_apart(entry.name):
                    continue
                if wrong := check_name(entry.name):
                    kind = OffendingKind.DIRECTORY_SEGMENT if is_folder else OffendingKind.FILE_NAME
                    found.findings += findings_at(self._identity, f"{above}/{entry.name}", kind, wrong)
                if is_folder:
                    found.subfolders.append(entry.name)
                else:
                    yield entry.name

    def _is_apart(self, name: str) -> bool:
        return name == CACHE_FOLDER_NAME or (self._run.is_project and leads_into_run(os.fsencode(name)))

    def _content(self, path: str) -> Iterator[Finding]:
        self._note(path)
        place = self._in_run(path)
        try:
            matches: Sequence[RuleMatch] = scan_content(place, self._rules.scan)
        except FileNotFoundError:
            return
        except OSError as error:
            if isinstance(error, SymlinkOnTheWayError):
                return
            matches = [unreadable_folder(str(error.strerror))]
        yield from findings_at(self._identity, f"{self._identity}/{path}", OffendingKind.FILE_CONTENT, matches)

    def _in_run(self, relative: str) -> bytes:
        return self._place + b"/" + os.fsencode(relative) if relative else self._place

    def _note(self, relative: str) -> None:
        self._looked_at.note(self._in_run(relative))


def creation_in(folder: Place) -> tuple[CreationRecord | None, list[RuleMatch]]:
    """A run's or project's creation.json, and what is wrong with it."""
    try:
        return read_creation_of(folder), []
    except CreationMissingError:
        return None, [ORPHAN]
    except CreationError as error:
        return None, [unreadable_creation(error)]


def readme_findings(run_path: str, path: str, folder: Path, rules: AuditRules) -> Iterator[Finding]:
    """README fields that the configuration requires and that the run or project at `path` lacks."""
    if not rules.required_fields:
        return
    where = f"{path}/{CACHE_FOLDER_NAME}/{README_FIELDS_NAME}"
    try:
        with folder_beneath(folder / CACHE_FOLDER_NAME) as cache:
            fields = parse_readme_fields(read_in_folder(cache, folder / CACHE_FOLDER_NAME / README_FIELDS_NAME))
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ReadmeFieldsError) as error:
        reason = str(error.strerror) if isinstance(error, OSError) else str(error)
        yield from findings_at(run_path, where, OffendingKind.FILE_CONTENT, [unreadable_folder(reason)])
        return
    yield from findings_at(
        run_path, where, OffendingKind.FILE_CONTENT, missing_readme_fields(fields, rules.required_fields)
    )


def _shown(path: str) -> str:
    """A path for people: what isn't UTF-8 on disk shows U+FFFD."""
    return os.fsencode(path).decode("utf-8", errors="replace")


def findings_at(run_path: str, path: str, kind: OffendingKind, matches: Iterable[RuleMatch]) -> Iterator[Finding]:
    """What fired at one place, as findings. Paths are str with surrogate escapes where they aren't UTF-8."""
    for match in matches:
        display, exact = _shown(path), os.fsencode(path)
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


def first_unreadable(findings: Iterable[Finding]) -> Finding | None:
    """A finding that says that something could not be looked into."""
    return next((finding for finding in findings if finding.rule is Rule.UNREADABLE_FOLDER), None)
