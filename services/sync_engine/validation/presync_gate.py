"""The pre-sync gate of one run: imports foreign overrides, walks the run afresh, and says what stands in the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from libs.run_tree.creation_record import CreationRecord, SyncStatus
from libs.run_tree.overrides import ActiveOverrides, active_overrides
from libs.service_kit.work_threads import WorkThreads
from services.sync_engine.engine_log import EngineLog
from services.sync_engine.runs.creation_projection import CreationFiles
from services.sync_engine.runs.location import LocatedRun
from services.sync_engine.runs.run import RunRecord
from services.sync_engine.validation.finding import Finding
from services.sync_engine.validation.gate import blocking_findings, judged
from services.sync_engine.validation.walk import ContentScan, audit_run


@dataclass(frozen=True, slots=True)
class GateView:
    """What the gate saw at one moment. Closed while `blocking` isn't empty."""

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
        return _view(run, self.creation, self.findings, now)


class PreSyncGate:
    """Looks at runs as they lie on disk."""

    def __init__(self, log: EngineLog, files: CreationFiles, scan: ContentScan, threads: WorkThreads) -> None:
        self._threads = threads
        self._log = log
        self._files = files
        self._scan = scan

    async def look(self, located: LocatedRun, now: datetime) -> GateView:
        """A fresh walk. WalkError, and the errors of `read_creation`."""
        creation = await self._files.import_foreign(located)
        root, path = located.equipment.local_root, located.path
        findings = await self._threads.run(lambda: audit_run(root, path, self._scan, creation))
        return _view(await self._log.run(located.identity), creation, findings, now)


def _view(run: RunRecord, creation: CreationRecord, findings: Sequence[Finding], now: datetime) -> GateView:
    active = active_overrides(run.entries, now)
    status = run.sync_status or SyncStatus.PENDING
    seen = judged(findings, active_classes=active.classes, sync_status=status)
    return GateView(run, creation, tuple(seen), tuple(blocking_findings(seen, active.classes)), active)


def refusal(view: GateView) -> str:
    """One sentence that names what closes the gate."""
    classes = sorted({f.rule.value for f in view.blocking})
    count = len(view.blocking)
    return f"{count} hard finding{'s' if count != 1 else ''} without an active override: {', '.join(classes)}"
