"""Creation mode: the same rules for a run that is about to be made (SPEC §3). Touches no disk. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from libs.run_tree.json_value import JsonValue
from libs.run_tree.readme_fields import README_FIELDS_NAME, ReadmeFields, readme_fields_of
from libs.run_tree.run_path import RunKind, RunPath, RunPathError
from services.sync_engine.validation.content_scan import ContentScan, scan_text
from services.sync_engine.validation.finding import Finding, OffendingKind, in_order
from services.sync_engine.validation.rules import RuleMatch, check_mode, check_name
from services.sync_engine.validation.soft_rules import check_project_name, missing_readme_fields

_MIB = 1 << 20
_CACHE = ".exlab-wizard"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A run as somebody means to make it: its path below `local_root`, its kind (None: not said), the names of its
    files relative to the run, the contents of those that a template rendered, and its README fields, layered or flat.
    """

    path: str
    run_kind: RunKind | None = None
    file_names: Sequence[str] = ()
    file_contents: Mapping[str, str] = field(default_factory=dict)
    required_fields: Iterable[str] = ()
    readme_fields: Mapping[str, JsonValue] = field(default_factory=dict)


def check_proposal(proposal: Proposal, scan: ContentScan) -> list[Finding]:
    """Every finding that the run would have, in the one order."""
    return in_order([*_path(proposal), *_names(proposal), *_contents(proposal, scan), *_fields(proposal)])


def _path(proposal: Proposal) -> Iterator[Finding]:
    segments = proposal.path.split("/")
    for number, segment in enumerate(segments):
        matches = list(check_name(segment))
        if number == 1 and len(segments) > 1:
            matches += check_project_name(segment)
        yield from _found(proposal, "/".join(segments[: number + 1]), OffendingKind.DIRECTORY_SEGMENT, matches)
    try:
        mode = check_mode(RunPath.parse(proposal.path), proposal.run_kind)
    except RunPathError:
        # A project's path, or one that names no run: then no signs of a kind can disagree.
        return
    if mode is not None:
        yield from _found(proposal, proposal.path, OffendingKind.DIRECTORY_SEGMENT, [mode])


def _names(proposal: Proposal) -> Iterator[Finding]:
    for name in sorted({*proposal.file_names, *proposal.file_contents}):
        *folders, file_name = name.split("/")
        for depth in range(len(folders)):
            where = "/".join((proposal.path, *folders[: depth + 1]))
            yield from _found(proposal, where, OffendingKind.DIRECTORY_SEGMENT, check_name(folders[depth]))
        yield from _found(proposal, f"{proposal.path}/{name}", OffendingKind.FILE_NAME, check_name(file_name))


def _contents(proposal: Proposal, scan: ContentScan) -> Iterator[Finding]:
    for name, text in sorted(proposal.file_contents.items()):
        too_large = len(text.encode(errors="replace")) > scan.max_mib * _MIB
        if scan.takes(name) and not too_large and "\0" not in text:
            where = f"{proposal.path}/{name}"
            yield from _found(proposal, where, OffendingKind.FILE_CONTENT, scan_text(name, text))


def _fields(proposal: Proposal) -> Iterator[Finding]:
    layered = readme_fields_of(proposal.readme_fields)
    fields = ReadmeFields((*layered.layers, proposal.readme_fields))
    where = f"{proposal.path}/{_CACHE}/{README_FIELDS_NAME}"
    missing = missing_readme_fields(fields, proposal.required_fields)
    yield from _found(proposal, where, OffendingKind.FILE_CONTENT, missing)


def _found(proposal: Proposal, path: str, kind: OffendingKind, matches: Iterable[RuleMatch]) -> Iterator[Finding]:
    for match in matches:
        above = len(path.split("/")) < len(proposal.path.split("/"))
        yield Finding(
            rule=match.rule,
            tier=match.rule.tier,
            run_path="" if above else proposal.path,
            offending_path=path,
            offending_kind=kind,
            matched_token=match.token,
            rule_detail=match.detail,
        )
