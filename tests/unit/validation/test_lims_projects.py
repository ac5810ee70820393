from __future__ import annotations

from libs.run_tree.lims_project import NamedLimsProject as Named
from services.sync_engine.lims.known_projects import KnownLimsProjects
from services.sync_engine.validation.finding import Rule

HERE, ELSEWHERE = "https://lims.example", "https://other.example"
CORTEX = Named("u-1", "PROJ-1", "Cortex")


def listing(*projects: Named, lims: str = HERE) -> KnownLimsProjects:
    known = KnownLimsProjects()
    for project in projects:
        known.put(lims, project)
    known.in_step(lims, was_read=True)
    return known


def rules(known: KnownLimsProjects, named: Named | None) -> list[Rule]:
    return [match.rule for match in known.matches(named)]


def test_what_is_listed_as_it_is_named_is_no_finding() -> None:
    for named in (CORTEX, Named("u-1", "", ""), Named("", "PROJ-1", "Cortex"), Named("", "", "Cortex"), None):
        assert rules(listing(CORTEX), named) == []


def test_gone_and_renamed() -> None:
    known = listing(CORTEX)
    assert rules(known, Named("u-2", "PROJ-1", "Cortex")) == [Rule.LIMS_PROJECT_MISSING]
    assert rules(known, Named("", "PROJ-2", "Cortex")) == [Rule.LIMS_PROJECT_MISSING]
    assert rules(known, Named("u-1", "PROJ-1", "Retina")) == [Rule.LIMS_PROJECT_RENAMED]
    assert rules(known, Named("u-1", "PROJ-0", "Cortex")) == [Rule.LIMS_PROJECT_RENAMED]
    (renamed,) = known.matches(Named("u-1", "PROJ-1", "Retina"))
    assert (renamed.token, "'Cortex'" in renamed.detail) == ("Retina", True)


def test_nothing_is_said_while_a_lims_was_never_read() -> None:
    gone = Named("u-2", "PROJ-2", "Gone")
    assert rules(KnownLimsProjects(), gone) == []
    known = listing(CORTEX)
    known.in_step(ELSEWHERE, was_read=False)
    assert rules(known, gone) == []
    assert rules(known, Named("u-1", "PROJ-1", "Retina")) == [Rule.LIMS_PROJECT_RENAMED]
    known.put(ELSEWHERE, gone)
    known.in_step(ELSEWHERE, was_read=True)
    assert rules(known, gone) == []
    assert rules(known, Named("u-3", "", "")) == [Rule.LIMS_PROJECT_MISSING]


def test_only_whole_lists_count() -> None:
    known = listing(CORTEX)
    known.begin()
    assert rules(known, CORTEX) == []
    known.put(HERE, Named("u-9", "PROJ-9", "first of the new list"))
    assert rules(known, CORTEX) == []
    known.in_step(HERE, was_read=True)
    assert rules(known, CORTEX) == [Rule.LIMS_PROJECT_MISSING]
    known.put(HERE, CORTEX)
    known.remove(HERE, "u-9")
    known.in_step(HERE, was_read=True)
    assert rules(known, CORTEX) == []
    known.forget()
    assert rules(known, Named("u-9", "", "")) == []
