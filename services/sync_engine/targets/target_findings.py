"""A destination under suspicion, as a finding for operators (ARCHITECTURE §4, Mismatch). Pure."""

from __future__ import annotations

from services.sync_engine.targets.target import Target, why_suspected
from services.sync_engine.validation.finding import Finding, OffendingKind, Rule


def finding_of_target(target: Target) -> Finding:
    """Of the equipment's folder: whatever run, its jobs to this destination wait."""
    return Finding(
        rule=Rule.TARGET_SUSPECTED,
        tier=Rule.TARGET_SUSPECTED.tier,
        run_path="",
        offending_path=target.equipment_id,
        offending_kind=OffendingKind.DIRECTORY_SEGMENT,
        matched_token=None,
        rule_detail=f"Destination {why_suspected(target)}.",
    )
