"""A validation problem: which rule, how heavy, where, and what matched (SPEC §3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Tier(StrEnum):
    """How much a finding weighs."""

    HARD = "hard"
    SOFT = "soft"


class Rule(StrEnum):
    """A rule's short name, as overrides in `creation.json` spell it too."""

    UNRESOLVED_PLACEHOLDER_TOKEN = "unresolved_placeholder_token"
    LEFTOVER_JINJA_MARKER = "leftover_jinja_marker"
    ILLEGAL_FILESYSTEM_CHARACTER = "illegal_filesystem_character"
    RESERVED_FILESYSTEM_NAME = "reserved_filesystem_name"
    MODE_PREFIX_MISMATCH = "mode_prefix_mismatch"
    VERIFIED_FILE_CHANGED = "verified_file_changed"
    DESTINATION_FILE_DIFFERS = "destination_file_differs"
    COPY_ROTTED = "copy_rotted"
    COPY_NOT_ELSEWHERE = "copy_not_elsewhere"
    COPIES_DIFFER = "copies_differ"
    ORPHAN = "orphan"
    MISSING_REQUIRED_FIELD = "missing_required_field"
    MALFORMED_YAML_FRONT_MATTER = "malformed_yaml_front_matter"
    UNSAFE_PROJECT_NAME = "unsafe_project_name"
    UNREADABLE_CREATION_JSON = "unreadable_creation_json"
    UNREADABLE_FOLDER = "unreadable_folder"
    LIMS_PROJECT_MISSING = "lims_project_missing"
    LIMS_PROJECT_RENAMED = "lims_project_renamed"
    NAS_SYNC_FAILED = "nas_sync_failed"
    NAS_SYNC_WAITING = "nas_sync_waiting"
    STAGING_STALLED = "staging_stalled"
    STAGING_WAITING = "staging_waiting"
    TARGET_SUSPECTED = "target_suspected"
    SECRET_ROTATION_OVERDUE = "secret_rotation_overdue"

    @property
    def tier(self) -> Tier:
        """Hard ones close the gate; soft ones are reported."""
        return Tier.HARD if self in _HARD else Tier.SOFT

    @property
    def can_be_overridden(self) -> bool:
        """The five rules of names and content. The others are accepted file by file and hash by hash."""
        return self in _OVERRIDABLE


_OVERRIDABLE = frozenset(
    {
        Rule.UNRESOLVED_PLACEHOLDER_TOKEN,
        Rule.LEFTOVER_JINJA_MARKER,
        Rule.ILLEGAL_FILESYSTEM_CHARACTER,
        Rule.RESERVED_FILESYSTEM_NAME,
        Rule.MODE_PREFIX_MISMATCH,
    }
)


_HARD = _OVERRIDABLE | {Rule.VERIFIED_FILE_CHANGED, Rule.DESTINATION_FILE_DIFFERS}


class OffendingKind(StrEnum):
    """What the offending path names."""

    DIRECTORY_SEGMENT = "directory_segment"
    FILE_NAME = "file_name"
    FILE_CONTENT = "file_content"


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem. Paths are relative to `local_root`, with "/", for display: a byte that isn't UTF-8 shows U+FFFD.

    `run_path` is "" for a finding above any run. `offending_path_bytes` is the path as the filesystem has it, and
    empty when `offending_path` is exact.
    """

    rule: Rule
    tier: Tier
    run_path: str
    offending_path: str
    offending_kind: OffendingKind
    matched_token: str | None
    rule_detail: str
    synced_under_prior_policy: bool = False
    override_active: bool = False
    offending_path_bytes: bytes = b""

    @property
    def sort_key(self) -> tuple[int, str, str, bytes, str, str, str, str]:
        """Hard first, then rule, then offending path; the rest only makes the order complete."""
        return (
            0 if self.tier is Tier.HARD else 1,
            self.rule.value,
            self.offending_path,
            self.offending_path_bytes,
            self.run_path,
            self.offending_kind.value,
            self.matched_token or "",
            self.rule_detail,
        )


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """The one order in which findings are shown, each once."""
    return sorted(set(findings), key=lambda finding: finding.sort_key)
