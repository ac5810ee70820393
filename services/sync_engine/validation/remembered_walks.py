"""Walks that needn't be repeated while nothing that they looked at has changed (SPEC §3: cheap to repeat)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from libs.run_tree.find_runs import find_projects, find_runs
from libs.run_tree.run_path import RunPath
from services.sync_engine.validation.walk import AuditRules, RunAudit, WalkError, audit_run
from services.sync_engine.validation.walk_above import FolderAudit, audit_equipment, audit_project, names_above

_MOST = 200_000


class RememberedWalks:
    """Walks of one configuration. Correct first: a walk is repeated unless all that it looked at is as it was, and
    never remembered on a network filesystem, whose times say little. Any thread may use it."""

    def __init__(self, rules: AuditRules, local_root: Path, *, may_remember: bool) -> None:
        self._rules = rules
        self._root = local_root
        self._may_remember = may_remember
        self._known: dict[str, RunAudit] = {}
        self._lock = threading.Lock()

    def run(self, run: RunPath) -> RunAudit:
        """As `audit_run`, of the present state. WalkError when the run isn't there."""
        key = str(run)
        with self._lock:
            known = self._known.get(key)
        if known is not None and known.looked_at.is_unchanged():
            return known
        audit = audit_run(self._root, run, self._rules)
        if self._may_remember:
            with self._lock:
                if len(self._known) >= _MOST:
                    self._known.clear()
                self._known[key] = audit
        return audit

    def scope(self, equipment_id: str, project: str | None = None) -> Iterator[RunAudit | FolderAudit]:
        """The equipment's own folder and every project of it, or one project, each followed by its runs. WalkError
        when the equipment's folder can't be listed. A run that vanishes meanwhile is passed over."""
        try:
            projects = find_projects(self._root, equipment_id) if project is None else [project]
        except OSError as error:
            raise WalkError(equipment_id, str(error.strerror)) from error
        if project is None:
            yield audit_equipment(self._root, equipment_id)
        for name in projects:
            try:
                yield audit_project(self._root, equipment_id, name, self._rules)
            except WalkError:
                # It became a symlink since the projects were listed: those are none.
                continue
            with suppress(WalkError):
                yield self.run(RunPath(equipment_id, name, "", ""))
            above: set[str] = set()
            for run in _runs_of(self._root, equipment_id, name):
                if run.group not in above:
                    above.add(run.group)
                    yield FolderAudit(tuple(names_above(run)))
                try:
                    yield self.run(run)
                except WalkError:
                    continue


def _runs_of(local_root: Path, equipment_id: str, project: str) -> list[RunPath]:
    try:
        return list(find_runs(local_root, equipment_id, project))
    except OSError:
        # The folder that can't be listed is a finding of the project's own audit.
        return []
