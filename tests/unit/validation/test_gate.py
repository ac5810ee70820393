"""What a run's findings mean under the overrides that hold (SPEC §3)."""

from __future__ import annotations

import random

from libs.run_tree.creation_record import SyncStatus
from services.sync_engine.validation.finding import Finding, OffendingKind, Rule, Tier, in_order
from services.sync_engine.validation.gate import blocking_findings, judged


def finding(rule: Rule, path: str = "EQ/p/Runs/Run_x/a", tier: Tier = Tier.HARD, token: str | None = None) -> Finding:
    return Finding(rule, tier, "EQ/p/Runs/Run_x", path, OffendingKind.FILE_NAME, token, "A sentence.")


JINJA = finding(Rule.LEFTOVER_JINJA_MARKER)
RESERVED = finding(Rule.RESERVED_FILESYSTEM_NAME)
DIFFERS = finding(Rule.DESTINATION_FILE_DIFFERS)


def test_the_gate_is_open_without_hard_findings() -> None:
    assert blocking_findings([], frozenset()) == []
    assert blocking_findings([finding(Rule.LEFTOVER_JINJA_MARKER, tier=Tier.SOFT)], frozenset()) == []


def test_only_an_override_of_the_same_class_opens_it() -> None:
    assert blocking_findings([JINJA, RESERVED], {"leftover_jinja_marker"}) == [RESERVED]
    assert blocking_findings([JINJA, RESERVED], {"leftover_jinja_marker", "reserved_filesystem_name"}) == []
    assert blocking_findings([JINJA], {"LEFTOVER_JINJA_MARKER", "everything"}) == [JINJA]


def test_files_accepted_one_by_one_are_never_overridden_by_class() -> None:
    assert blocking_findings([DIFFERS], {"destination_file_differs"}) == [DIFFERS]
    assert not judged([DIFFERS], active_classes={"destination_file_differs"}, sync_status=SyncStatus.PENDING)[
        0
    ].override_active


def test_findings_are_judged_in_place() -> None:
    soft = finding(Rule.RESERVED_FILESYSTEM_NAME, tier=Tier.SOFT)
    result = judged([JINJA, soft], active_classes={"leftover_jinja_marker"}, sync_status=SyncStatus.SYNCED)
    assert [(f.override_active, f.synced_under_prior_policy) for f in result] == [(True, True), (False, False)]
    for status in (SyncStatus.PENDING, SyncStatus.FAILED, SyncStatus.BLOCKED_BY_VALIDATION):
        assert not judged([JINJA], active_classes=(), sync_status=status)[0].synced_under_prior_policy
    assert judged([JINJA], active_classes=(), sync_status=SyncStatus.CLEANED)[0].synced_under_prior_policy


def test_one_order_whatever_came_first() -> None:
    findings = [
        finding(Rule.ILLEGAL_FILESYSTEM_CHARACTER, "EQ/a", token=":"),
        finding(Rule.ILLEGAL_FILESYSTEM_CHARACTER, "EQ/a", token="?"),
        finding(Rule.ILLEGAL_FILESYSTEM_CHARACTER, "EQ/b"),
        finding(Rule.LEFTOVER_JINJA_MARKER, "EQ/a"),
        finding(Rule.ILLEGAL_FILESYSTEM_CHARACTER, "EQ/a", Tier.SOFT),
    ]
    shuffled = findings * 2
    random.Random(1).shuffle(shuffled)
    assert in_order(shuffled) == findings
