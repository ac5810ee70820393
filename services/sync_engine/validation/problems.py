"""QueryProblems: every finding of a scope, as the runs lie on disk now and as their jobs stand, in the one order."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from libs.event_log.projection import ProjectionRunner
from libs.run_tree.beneath import is_folder_beneath
from libs.run_tree.creation_record import SyncStatus
from libs.run_tree.lims_project import NamedLimsProject
from libs.run_tree.overrides import active_overrides
from libs.run_tree.run_path import RunPath
from libs.service_kit.errors import LabferryError
from libs.service_kit.network_filesystem import network_filesystem
from libs.service_kit.work_threads import WorkThreads
from services.sync_engine.audits.read_again import NextReading
from services.sync_engine.audits.read_model import jobs_of_runs_that_differ, jobs_that_rotted
from services.sync_engine.errors import EquipmentNotConfiguredError, RunNotFoundError
from services.sync_engine.jobs.job import Job
from services.sync_engine.jobs.read_model import (
    jobs_failed,
    jobs_not_elsewhere,
    jobs_waiting_for_somebody,
    knows_jobs_below,
)
from services.sync_engine.runs.location import RunLocator
from services.sync_engine.runs.read_model import run_record
from services.sync_engine.runs.run import RunRecord
from services.sync_engine.staging.read_model import staged_runs_held
from services.sync_engine.staging.staging_findings import findings_of_staged
from services.sync_engine.staging.staging_folder import staged_equipment
from services.sync_engine.targets.target import Target
from services.sync_engine.targets.target_findings import finding_of_target
from services.sync_engine.validation.finding import Finding, OffendingKind, Rule, in_order
from services.sync_engine.validation.gate import judged
from services.sync_engine.validation.job_findings import findings_of_copies, findings_of_job, is_rotted
from services.sync_engine.validation.remembered_walks import RememberedWalks
from services.sync_engine.validation.rules import RuleMatch
from services.sync_engine.validation.walk import AuditRules, RunAudit, WalkError, findings_at
from services.sync_engine.validation.walk_above import FolderAudit, names_above


@dataclass(frozen=True, slots=True)
class Everything:
    """Every configured equipment, and what is staged."""


@dataclass(frozen=True, slots=True)
class EquipmentScope:
    equipment_id: str


@dataclass(frozen=True, slots=True)
class ProjectScope:
    equipment_id: str
    project: str


@dataclass(frozen=True, slots=True)
class RunScope:
    run: str


Scope = Everything | EquipmentScope | ProjectScope | RunScope


@dataclass(frozen=True, slots=True)
class FromOutside:
    """What is known now of things beyond the folders: destinations under suspicion, what keeps a wrong copy from being
    mended and when it is read again, a project that a creation.json names, and the secrets of one equipment, or all,
    that were to be replaced before a moment."""

    suspected: Callable[[], Sequence[Target]]
    why_unmended: Callable[[Job], str]
    read_again: Callable[[Sequence[Job]], Awaitable[Mapping[str, NextReading]]]
    about_lims_project: Callable[[NamedLimsProject | None], Sequence[RuleMatch]]
    secrets_overdue: Callable[[datetime, str | None], Sequence[Finding]]


class Problems:
    """Answers from the folders as they are now. Changes nothing: entries that only the file holds count too."""

    def __init__(
        self,
        projections: ProjectionRunner,
        locator: RunLocator,
        rules: AuditRules,
        threads: WorkThreads,
        clock: Callable[[], datetime],
        outside: FromOutside,
    ) -> None:
        self._projections = projections
        self._locator = locator
        self._rules = rules
        self._threads = threads
        self._clock = clock
        self._outside = outside
        self._walks: dict[Path, RememberedWalks] = {}

    async def query(self, scope: Scope) -> list[Finding]:
        """NOT_FOUND errors for a scope that isn't there; WalkError for an equipment whose folder can't be read."""
        audits = await self._look(scope)
        runs = {str(a.run): a for a in audits if isinstance(a, RunAudit)}
        found = [run for run, audit in runs.items() if audit.findings]
        records = await self._projections.query(lambda c: {run: run_record(c, run) for run in found})
        now = self._clock()
        stopped = await self._projections.query(
            lambda c: [
                *jobs_failed(c),
                *jobs_waiting_for_somebody(c),
                *jobs_that_rotted(c),
                *jobs_not_elsewhere(c),
            ]
        )
        staged = await self._projections.query(staged_runs_held)
        findings = [f for audit in audits if isinstance(audit, FolderAudit) for f in audit.findings]
        emptied = await self._threads.run(
            lambda: self._emptied(runs[run] for run in found if _is_cleaned(records[run]))
        )
        for run in found:
            of_run = _judged(runs[run], records[run], now)
            findings += [f for f in of_run if f.rule is not Rule.ORPHAN or run not in emptied]
        # A run whose folder is gone has them too: what lies at its destinations may be the only copy.
        told = [placed.job for placed in stopped if _covers(scope, placed.job.run)]
        again = await self._outside.read_again([job for job in told if is_rotted(job)])
        for job in told:
            reading = again.get(job.job_id)
            findings += findings_of_job(job, self._outside.why_unmended(job), reading.words if reading else "")
        for run, jobs in (await self._projections.query(jobs_of_runs_that_differ)).items():
            if _covers(scope, run):
                findings += findings_of_copies(jobs, self._places_of(jobs[0].equipment_id))
        findings += [f for record in staged if record.run in runs for f in findings_of_staged(record)]
        findings += [finding_of_target(t) for t in self._outside.suspected() if _concerns(t, scope)]
        match scope:
            case Everything():
                findings += self._outside.secrets_overdue(now, None)
            case EquipmentScope(equipment_id):
                findings += self._outside.secrets_overdue(now, equipment_id)
            case _:
                pass
        for run, audit in runs.items():
            if audit.creation is not None:
                about = self._outside.about_lims_project(audit.creation.lims_project)
                findings += findings_at(run, run, OffendingKind.DIRECTORY_SEGMENT, about)
        return in_order(findings)

    async def _look(self, scope: Scope) -> list[RunAudit | FolderAudit]:
        """Empty for what can't be found any more, or isn't configured, and of which the log knows."""
        try:
            return await self._threads.run(lambda: list(self._audits(scope)))
        except (RunNotFoundError, EquipmentNotConfiguredError):
            match scope:
                case RunScope(run):
                    folder = run
                case ProjectScope(equipment_id, project):
                    folder = f"{equipment_id}/{project}"
                case EquipmentScope(equipment_id):
                    folder = equipment_id
                case _:
                    raise
            if not await self._projections.query(lambda c: knows_jobs_below(c, folder)):
                raise
            return []

    def _emptied(self, audits: Iterable[RunAudit]) -> frozenset[str]:
        """Those whose folder a cleanup left without a single file: nothing lies there that nobody knows of."""
        emptied = set()
        for audit in audits:
            with suppress(LabferryError, OSError):
                if audit.creation is None and not _holds_files(self._locator.locate(str(audit.run)).folder):
                    emptied.add(str(audit.run))
        return frozenset(emptied)

    def _places_of(self, equipment_id: str) -> Collection[str]:
        try:
            return [place.name for place in self._locator.equipment(equipment_id).all_destinations()]
        except EquipmentNotConfiguredError:
            return ()

    def _audits(self, scope: Scope) -> Iterator[RunAudit | FolderAudit]:
        match scope:
            case RunScope(run):
                path = self._locator.parse(run)
                yield FolderAudit(tuple(names_above(path)))
                yield self._walks_in(self._root_of_run(path)).run(path)
            case ProjectScope(equipment_id, project):
                roots = [r for r in self._roots_of(equipment_id) if is_folder_beneath(r / equipment_id / project)]
                if not roots:
                    missing = f"{equipment_id}/{project}"
                    raise RunNotFoundError(f"there is no project {missing}", metadata={"run": missing})
                for root in roots:
                    yield from self._walks_in(root).scope(equipment_id, project)
            case EquipmentScope(equipment_id):
                for root in self._roots_of(equipment_id):
                    yield from self._walks_in(root).scope(equipment_id)
            case Everything():
                configured = [equipment.id for equipment in self._locator.all_equipment]
                for equipment_id in dict.fromkeys((*configured, *self._staged_equipment())):
                    for root in self._roots_of(equipment_id):
                        yield from self._walks_in(root).scope(equipment_id)

    def _root_of_run(self, path: RunPath) -> Path:
        roots = self._roots_of(path.equipment_id)
        if any(equipment.id == path.equipment_id for equipment in self._locator.all_equipment):
            return self._locator.locate(str(path)).root
        if not is_folder_beneath(roots[0] / str(path)):
            raise RunNotFoundError(f"there is no run {path}", metadata={"run": str(path)})
        return roots[0]

    def _roots_of(self, equipment_id: str) -> Sequence[Path]:
        """Where its runs lie; for equipment that isn't configured, the staging root. EquipmentNotConfiguredError when
        it is unknown there too."""
        staging_root = self._locator.staging_root
        try:
            return self._locator.roots_of(self._locator.equipment(equipment_id))
        except EquipmentNotConfiguredError:
            if staging_root is None or equipment_id not in self._staged_equipment():
                raise
            return (Path(os.path.realpath(staging_root)),)

    def _staged_equipment(self) -> Sequence[str]:
        root = self._locator.staging_root
        if root is None:
            return ()
        try:
            return staged_equipment(root)
        except OSError as error:
            raise WalkError(root.name, str(error.strerror)) from error

    def _walks_in(self, root: Path) -> RememberedWalks:
        walks = self._walks.get(root)
        if walks is None:
            walks = RememberedWalks(self._rules, root, may_remember=network_filesystem(root) is None)
            self._walks[root] = walks
        return walks


def _concerns(target: Target, scope: Scope) -> bool:
    """The runs of a smaller scope say themselves that they wait."""
    match scope:
        case Everything():
            return True
        case EquipmentScope(equipment_id):
            return equipment_id == target.equipment_id
        case _:
            return False


def _covers(scope: Scope, run: str) -> bool:
    match scope:
        case Everything():
            return True
        case EquipmentScope(equipment_id):
            return run.startswith(f"{equipment_id}/")
        case ProjectScope(equipment_id, project):
            return f"{run}/".startswith(f"{equipment_id}/{project}/")
        case RunScope(path):
            return run == path


def _is_cleaned(record: RunRecord) -> bool:
    return record.sync_status is SyncStatus.CLEANED


def _holds_files(folder: str | Path) -> bool:
    return any(not e.is_dir(follow_symlinks=False) or _holds_files(e.path) for e in os.scandir(folder))


def _judged(audit: RunAudit, record: RunRecord, now: datetime) -> Sequence[Finding]:
    known = {e.id for e in record.entries}
    in_file_only = [e for e in (audit.creation.overrides if audit.creation else ()) if e.id not in known]
    active = active_overrides((*record.entries, *in_file_only), now)
    status = record.sync_status or SyncStatus.PENDING
    return judged(audit.findings, active_classes=active.classes, sync_status=status)
