"""The pre-sync gate (SPEC §3), pure: what a run's findings mean under the overrides that hold now."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from libs.run_tree.creation_record import SyncStatus
from services.sync_engine.validation.finding import Finding, Tier

_AT_ITS_DESTINATION = frozenset({SyncStatus.SYNCED, SyncStatus.CLEANED})


def judged(findings: Iterable[Finding], *, active_classes: Collection[str], sync_status: SyncStatus) -> list[Finding]:
    """The findings with `override_active` and `synced_under_prior_policy` set, in the same order.

    `active_classes` are the problem classes of the run's active overrides; `sync_status` is the run's own, from the
    log.
    """
    return [
        replace(
            finding,
            override_active=_is_overridden(finding, active_classes),
            synced_under_prior_policy=finding.tier is Tier.HARD and sync_status in _AT_ITS_DESTINATION,
        )
        for finding in findings
    ]


def blocking_findings(findings: Iterable[Finding], active_classes: Collection[str]) -> list[Finding]:
    """The hard findings that no active override of the same class covers: the gate is open only when there is none."""
    return [
        finding for finding in findings if finding.tier is Tier.HARD and not _is_overridden(finding, active_classes)
    ]


def _is_overridden(finding: Finding, active_classes: Collection[str]) -> bool:
    return finding.rule.can_be_overridden and finding.rule.value in active_classes
