"""QueryProblems: every finding of a scope, as the runs lie on disk now and as their jobs stand, in the one order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from libs.event_log.projection import ProjectionRunner
from libs.run_tree.creation_errors import CreationError
from libs.run_tree.creation_json import creation_path, read_creation
from libs.run_tree.creation_record import SyncStatus
from libs.run_tree.overrides import active_overrides
from services.sync_engine.errors import RunNotFoundError
from services.sync_engine.jobs.job import Job, JobState
from services.sync_engine.jobs.read_model import JobFilter, jobs_where
from services.sync_engine.runs.location import RunLocator
from services.sync_engine.runs.read_model import run_record
from services.sync_engine.runs.run import RunRecord
from services.sync_engine.transfer.transport import FailureKind
from services.sync_engine.validation.finding import Finding, OffendingKind, Rule, Tier, in_order
from services.sync_engine.validation.gate import judged
from services.sync_engine.validation.walk import ContentScan, ScopeAudit, audit_run, audit_scope


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
    """Answers from a fresh walk. Changes nothing: entries that only the file holds count all the same."""

    def __init__(
        self,
        projections: ProjectionRunner,
        locator: RunLocator,
        scan: ContentScan,
        clock: Callable[[], datetime],
    ) -> None:
        self._projections = projections
        self._locator = locator
        self._scan = scan
        self._clock = clock

    async def query(self, scope: Scope) -> list[Finding]:
        """WalkError when a run can't be read; NOT_FOUND errors for a scope that isn't there."""
        audits = await asyncio.to_thread(lambda: list(self._audits(scope)))
        runs = [str(a.run) for a in audits if a.run is not None and a.findings]
        records = await self._projections.query(lambda c: {run: run_record(c, run) for run in runs})
        now = self._clock()
        stopped = await self._projections.query(lambda c: jobs_where(c, JobFilter(states=(JobState.FAILED,))))
        walked = {str(a.run) for a in audits}
        of_jobs = [f for placed in stopped if placed.job.run in walked for f in _met_by(placed.job)]
        return in_order([*(f for audit in audits for f in _judged(audit, records, now)), *of_jobs])

    def _audits(self, scope: Scope) -> Iterator[ScopeAudit]:
        match scope:
            case RunScope(run):
                located = self._locator.locate(run)
                try:
                    creation = read_creation(creation_path(located.folder))
                except CreationError:
                    # The five rules do without; that it can't be read is a finding of its own in the whole table.
                    creation = None
                findings = audit_run(located.equipment.local_root, located.path, self._scan, creation)
                yield ScopeAudit(located.path, creation, tuple(findings))
            case ProjectScope(equipment_id, project):
                equipment = self._locator.equipment(equipment_id)
                if not (equipment.local_root / equipment_id / project).is_dir():
                    path = f"{equipment_id}/{project}"
                    raise RunNotFoundError(f"there is no project {path}", metadata={"run": path})
                yield from audit_scope(
                    equipment.local_root, equipment_id=equipment_id, settings=self._scan, project=project
                )
            case EquipmentScope(equipment_id):
                equipment = self._locator.equipment(equipment_id)
                yield from audit_scope(equipment.local_root, equipment_id=equipment_id, settings=self._scan)
            case Everything():
                for equipment in self._locator.all_equipment:
                    yield from audit_scope(equipment.local_root, equipment_id=equipment.id, settings=self._scan)


def _judged(audit: ScopeAudit, records: dict[str, RunRecord], now: datetime) -> Sequence[Finding]:
    if not audit.findings or audit.run is None:
        return audit.findings
    record = records[str(audit.run)]
    known = {e.id for e in record.entries}
    in_file_only = [e for e in (audit.creation.overrides if audit.creation else ()) if e.id not in known]
    active = active_overrides((*record.entries, *in_file_only), now)
    status = record.sync_status or SyncStatus.PENDING
    return judged(audit.findings, active_classes=active.classes, sync_status=status)


def _met_by(job: Job) -> list[Finding]:
    """`destination_file_differs`, one a file that stopped the job."""
    if job.failure is None or job.failure.kind is not FailureKind.DESTINATION_FILE_DIFFERS:
        return []
    return [
        Finding(
            rule=Rule.DESTINATION_FILE_DIFFERS,
            tier=Tier.HARD,
            run_path=job.run,
            offending_path=f"{job.run}/{path}",
            offending_kind=OffendingKind.FILE_CONTENT,
            matched_token=None,
            rule_detail=f"Destination {job.destination} holds another file of this name, which this job did not write.",
        )
        for path in job.failure.paths
    ]
