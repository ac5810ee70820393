"""The pre-sync gate of one run: imports foreign overrides, walks the run afresh, and says what stands in the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from libs.run_tree.creation_json import creation_path, read_creation
from libs.run_tree.creation_record import CreationRecord, SyncStatus
from libs.run_tree.overrides import ActiveOverrides, active_overrides
from libs.service_kit.work_threads import WorkThreads
from services.sync_engine.engine_log import EngineLog
from services.sync_engine.runs.creation_projection import CreationFiles
from services.sync_engine.runs.location import LocatedRun, RunLocator
from services.sync_engine.runs.run import RunRecord
from services.sync_engine.validation.finding import Finding, in_order
from services.sync_engine.validation.gate import blocking_findings, judged
from services.sync_engine.validation.walk import AuditRules, WalkError, audit_run, first_unreadable
from services.sync_engine.validation.walk_above import names_above


@dataclass(frozen=True, slots=True)
class GateView:
    """What the gate saw at one moment. Closed while `blocking` isn't empty."""

    located: LocatedRun
    run: RunRecord
    creation: CreationRecord
    findings: tuple[Finding, ...]
    blocking: tuple[Finding, ...]
    active: ActiveOverrides

    @property
    def is_open(self) -> bool:
        return not self.blocking

    def with_overrides(self, run: RunRecord, now: datetime) -> GateView:
        """The same walk, judged by the overrides as they are now."""
        return _view(self.located, run, self.creation, self.findings, now)


class PreSyncGate:
    """Looks at runs as they lie on disk."""

    def __init__(
        self, log: EngineLog, files: CreationFiles, locator: RunLocator, rules: AuditRules, threads: WorkThreads
    ) -> None:
        self._log = log
        self._files = files
        self._locator = locator
        self._rules = rules
        self._threads = threads

    async def look(self, run: str, now: datetime) -> GateView:
        """A fresh walk. The errors of the run's place, WalkError, and those of `read_creation`."""
        located, creation, findings = await self._threads.run(lambda: self._walk(run))
        return await self._judged(located, creation, findings, now)

    async def look_at_overrides(self, view: GateView, now: datetime) -> GateView:
        """An earlier walk, judged by what creation.json and the log say now. The errors of `read_creation`."""
        located = view.located
        creation = await self._threads.run(lambda: read_creation(creation_path(located.folder)))
        return await self._judged(located, creation, view.findings, now)

    async def _judged(
        self, located: LocatedRun, creation: CreationRecord, findings: Sequence[Finding], now: datetime
    ) -> GateView:
        record = await self._log.run(located.identity)
        if not self._files.knows(record, creation):
            creation = await self._files.import_foreign(located)
            record = await self._log.run(located.identity)
        return _view(located, record, creation, findings, now)

    def _walk(self, run: str) -> tuple[LocatedRun, CreationRecord, Sequence[Finding]]:
        # One visit to a thread for all that touches the disk.
        located = self._locator.locate(run)
        creation = read_creation(creation_path(located.folder))
        audit = audit_run(located.root, located.path, self._rules)
        unread = first_unreadable(audit.findings)
        if unread is not None:
            # What can't be looked into can't be let through.
            raise WalkError(unread.offending_path, unread.rule_detail)
        return located, creation, in_order([*names_above(located.path), *audit.findings])


def _view(
    located: LocatedRun, run: RunRecord, creation: CreationRecord, findings: Sequence[Finding], now: datetime
) -> GateView:
    active = active_overrides(run.entries, now)
    status = run.sync_status or SyncStatus.PENDING
    seen = judged(findings, active_classes=active.classes, sync_status=status)
    return GateView(located, run, creation, tuple(seen), tuple(blocking_findings(seen, active.classes)), active)


def refusal(view: GateView) -> str:
    """One sentence that names what closes the gate."""
    classes = sorted({f.rule.value for f in view.blocking})
    count = len(view.blocking)
    return f"{count} hard finding{'s' if count != 1 else ''} without an active override: {', '.join(classes)}"
