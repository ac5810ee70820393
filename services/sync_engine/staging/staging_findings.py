"""What staged runs have to say to operators, as findings (SPEC §3). Pure."""

from __future__ import annotations

from collections.abc import Sequence

from services.sync_engine.staging.staged_run import StagedRun, StagingHold
from services.sync_engine.validation.finding import Finding, OffendingKind, Rule

_RULES = {
    StagingHold.STALLED: Rule.STAGING_STALLED,
    StagingHold.EQUIPMENT_NOT_CONFIGURED: Rule.STAGING_WAITING,
    StagingHold.UNUSABLE: Rule.STAGING_WAITING,
    StagingHold.ELSEWHERE: Rule.STAGING_WAITING,
}
"""A blocked run has findings of its own, and one that is gone is nobody's problem any more."""


def findings_of_staged(record: StagedRun) -> Sequence[Finding]:
    """None while it goes on by itself."""
    rule = _RULES.get(record.held.hold) if record.held is not None else None
    if rule is None or record.held is None:
        return ()
    return (
        Finding(
            rule=rule,
            tier=rule.tier,
            run_path=record.run,
            offending_path=record.run,
            offending_kind=OffendingKind.DIRECTORY_SEGMENT,
            matched_token=None,
            rule_detail=record.held.detail,
        ),
    )
