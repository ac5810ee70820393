"""QueryProblems: every finding of a scope, as the runs lie on disk now and as their jobs stand, in the one order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from libs.event_log.projection import ProjectionRunner
from libs.run_tree.creation_record import SyncStatus
from libs.run_tree.overrides import active_overrides
from libs.service_kit.equipment_settings import EquipmentSettings
from libs.service_kit.network_filesystem import network_filesystem
from libs.service_kit.work_threads import WorkThreads
from services.sync_engine.audits.read_model import jobs_that_rotted
from services.sync_engine.errors import RunNotFoundError
from services.sync_engine.jobs.read_model import jobs_failed, jobs_waiting_for_somebody
from services.sync_engine.runs.location import RunLocator
from services.sync_engine.runs.read_model import run_record
from services.sync_engine.runs.run import RunRecord
from services.sync_engine.validation.finding import Finding, in_order
from services.sync_engine.validation.gate import judged
from services.sync_engine.validation.job_findings import findings_of_job
from services.sync_engine.validation.remembered_walks import RememberedWalks
from services.sync_engine.validation.walk import AuditRules, FolderAudit, RunAudit, names_above


@dataclass(frozen=True, slots=True)
class Everything:
    """Every configured equipment."""


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


class Problems:
    """Answers from the folders as they are now. Changes nothing: entries that only the file holds count too."""

    def __init__(
        self,
        projections: ProjectionRunner,
        locator: RunLocator,
        rules: AuditRules,
        threads: WorkThreads,
        clock: Callable[[], datetime],
    ) -> None:
        self._projections = projections
        self._locator = locator
        self._rules = rules
        self._threads = threads
        self._clock = clock
        self._walks: dict[str, RememberedWalks] = {}

    async def query(self, scope: Scope) -> list[Finding]:
        """NOT_FOUND errors for a scope that isn't there; WalkError for an equipment whose folder can't be read."""
        audits = await self._threads.run(lambda: list(self._audits(scope)))
        runs = {str(a.run): a for a in audits if isinstance(a, RunAudit)}
        found = [run for run, audit in runs.items() if audit.findings]
        records = await self._projections.query(lambda c: {run: run_record(c, run) for run in found})
        now = self._clock()
        stopped = await self._projections.query(
            lambda c: [*jobs_failed(c), *jobs_waiting_for_somebody(c), *jobs_that_rotted(c)]
        )
        findings = [f for audit in audits if isinstance(audit, FolderAudit) for f in audit.findings]
        for run in found:
            findings += _judged(runs[run], records[run], now)
        findings += [f for placed in stopped if placed.job.run in runs for f in findings_of_job(placed.job)]
        return in_order(findings)

    def _audits(self, scope: Scope) -> Iterator[RunAudit | FolderAudit]:
        match scope:
            case RunScope(run):
                located = self._locator.locate(run)
                yield FolderAudit(tuple(names_above(located.path)))
                yield self._walks_of(located.equipment).run(located.path)
            case ProjectScope(equipment_id, project):
                equipment = self._locator.equipment(equipment_id)
                if not (equipment.local_root / equipment_id / project).is_dir():
                    path = f"{equipment_id}/{project}"
                    raise RunNotFoundError(f"there is no project {path}", metadata={"run": path})
                yield from self._walks_of(equipment).scope(equipment_id, project)
            case EquipmentScope(equipment_id):
                yield from self._walks_of(self._locator.equipment(equipment_id)).scope(equipment_id)
            case Everything():
                for equipment in self._locator.all_equipment:
                    yield from self._walks_of(equipment).scope(equipment.id)

    def _walks_of(self, equipment: EquipmentSettings) -> RememberedWalks:
        walks = self._walks.get(equipment.id)
        if walks is None:
            local = network_filesystem(equipment.local_root) is None
            walks = RememberedWalks(self._rules, equipment.local_root, may_remember=local)
            self._walks[equipment.id] = walks
        return walks


def _judged(audit: RunAudit, record: RunRecord, now: datetime) -> Sequence[Finding]:
    known = {e.id for e in record.entries}
    in_file_only = [e for e in (audit.creation.overrides if audit.creation else ()) if e.id not in known]
    active = active_overrides((*record.entries, *in_file_only), now)
    status = record.sync_status or SyncStatus.PENDING
    return judged(audit.findings, active_classes=active.classes, sync_status=status)
