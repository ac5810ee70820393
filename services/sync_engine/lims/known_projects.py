"""What the LIMS gateway told of the projects, and what that says about a run. Pure.

Only whole lists count: what the gateway tells between two lists is put together aside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from libs.run_tree.lims_project import NamedLimsProject
from services.sync_engine.validation.finding import Rule
from services.sync_engine.validation.rules import RuleMatch


@dataclass(frozen=True, slots=True)
class _Listed:
    """The projects of one LIMS at one moment, by uid and by short id."""

    by_uid: Mapping[str, NamedLimsProject]
    by_short_id: Mapping[str, NamedLimsProject]


class KnownLimsProjects:
    """`None` for a LIMS that was never read. As long as there is one, or no LIMS at all, nothing is said."""

    def __init__(self) -> None:
        self._coming: dict[str, dict[str, NamedLimsProject]] = {}
        self._listed: dict[str, _Listed | None] = {}

    def begin(self) -> None:
        """What comes is the whole again; what is known stays until then."""
        self._coming = {}

    def forget(self) -> None:
        """Nothing is known any more."""
        self._coming = {}
        self._listed = {}

    def put(self, lims: str, project: NamedLimsProject) -> None:
        self._coming.setdefault(lims, {})[project.uid] = project

    def remove(self, lims: str, uid: str) -> None:
        self._coming.setdefault(lims, {}).pop(uid, None)

    def in_step(self, lims: str, *, was_read: bool) -> None:
        """What came of this LIMS so far is what it lists."""
        coming = self._coming.setdefault(lims, {})
        short = {project.short_id: project for project in coming.values()}
        self._listed[lims] = _Listed(MappingProxyType(dict(coming)), short) if was_read else None

    def matches(self, named: NamedLimsProject | None) -> list[RuleMatch]:
        """What is to be said of a run whose `creation.json` names this project."""
        if named is None or not (named.uid or named.short_id) or not self._listed:
            return []
        unread = False
        for listed in self._listed.values():
            if listed is None:
                unread = True
                continue
            project = listed.by_uid.get(named.uid) if named.uid else listed.by_short_id.get(named.short_id)
            if project is not None:
                return _renamed(named, project)
        if unread:
            return []
        shown = named.short_id or named.uid
        detail = f"The LIMS does not list the project {shown} ({named.name or named.uid}) that creation.json names."
        return [RuleMatch(Rule.LIMS_PROJECT_MISSING, shown, detail)]


def _renamed(named: NamedLimsProject, project: NamedLimsProject) -> list[RuleMatch]:
    then = (named.short_id or project.short_id, named.name or project.name)
    now = (project.short_id, project.name)
    if then == now:
        return []
    detail = f"creation.json names the project {then[0]} {then[1]!r}; the LIMS calls it {now[0]} {now[1]!r} now."
    return [RuleMatch(Rule.LIMS_PROJECT_RENAMED, then[1] if then[1] != now[1] else then[0], detail)]
