"""Findings as protobuf messages."""

from __future__ import annotations

from labferry.sync.v1 import finding_pb2
from libs.service_kit.enum_names import ProtoNames
from services.sync_engine.runs.run import RULES
from services.sync_engine.validation.finding import Finding, OffendingKind, Tier

TIERS = ProtoNames(Tier, finding_pb2.Tier, "TIER")
_KINDS = ProtoNames(OffendingKind, finding_pb2.OffendingKind, "OFFENDING_KIND")


def finding_message(finding: Finding) -> finding_pb2.Finding:
    return finding_pb2.Finding(
        rule=RULES.to_proto(finding.rule),
        tier=TIERS.to_proto(finding.tier),
        run_path=finding.run_path,
        offending_path=finding.offending_path,
        offending_kind=_KINDS.to_proto(finding.offending_kind),
        matched_token=finding.matched_token,
        rule_detail=finding.rule_detail,
        synced_under_prior_policy=finding.synced_under_prior_policy,
        override_active=finding.override_active,
        offending_path_bytes=finding.offending_path_bytes,
    )
