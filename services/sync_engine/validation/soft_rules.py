"""The soft rules about cache files and folders (SPEC §3), pure: what was read in, matches out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from libs.run_tree.creation_errors import CreationError
from libs.run_tree.creation_record import CreationRecord
from libs.run_tree.readme_fields import ReadmeFields
from libs.run_tree.run_path import project_name_problem
from services.sync_engine.validation.finding import Rule
from services.sync_engine.validation.rules import RuleMatch

ORPHAN = RuleMatch(Rule.ORPHAN, None, "The folder has no .exlab-wizard/creation.json: nothing says what it holds.")


def check_project_name(name: str) -> list[RuleMatch]:
    """A project folder on disk that breaks the rule of project names."""
    problem = project_name_problem(name)
    return [] if problem is None else [RuleMatch(Rule.UNSAFE_PROJECT_NAME, name, problem)]


def unreadable_creation(error: CreationError) -> RuleMatch:
    """A creation.json that is there and can't be used."""
    return RuleMatch(Rule.UNREADABLE_CREATION_JSON, None, error.message)


def unreadable_folder(reason: str) -> RuleMatch:
    """A folder, or a file that was to be looked into, that the system refuses to read."""
    return RuleMatch(Rule.UNREADABLE_FOLDER, None, f"It can't be read: {reason}.")


def missing_readme_fields(fields: ReadmeFields, required: Iterable[str]) -> list[RuleMatch]:
    """Required fields that are absent, null or empty."""
    return [
        RuleMatch(Rule.MISSING_REQUIRED_FIELD, field_id, f"The required README field {field_id} is not filled in.")
        for field_id in sorted(set(required))
        if not fields.is_filled(field_id)
    ]


def missing_lims_project(creation: CreationRecord) -> list[RuleMatch]:
    """`lims_project` is required from version 1.5 on, unless the file came from below."""
    if not creation.lims_project_expected or creation.raw.get("lims_project") is not None:
        return []
    detail = f"creation.json {creation.schema_version} names no lims_project."
    return [RuleMatch(Rule.MISSING_REQUIRED_FIELD, "lims_project", detail)]


def malformed_front_matter(problem: str | None) -> Sequence[RuleMatch]:
    """`problem` as `front_matter_problem` says it."""
    return [] if problem is None else [RuleMatch(Rule.MALFORMED_YAML_FRONT_MATTER, None, problem)]
