"""What a reading of the LIMS adds to the log, folded again, is what the LIMS listed."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from labferry.events.v1 import lims_events_pb2 as facts
from services.lims_gateway.projects.known_projects import KnownProjects, recorded, stream_of
from services.lims_gateway.projects.project import Project, ProjectRows, ProjectStatus

HERE, ELSEWHERE = "https://lims.example", "https://other.example"

projects = st.builds(
    Project,
    uid=st.sampled_from("abcd"),
    short_id=st.sampled_from(["P-1", "P-2"]),
    name=st.sampled_from(["one", "two"]),
    status=st.sampled_from(ProjectStatus),
    updated_at=st.sampled_from([None, 1.0, 2.5]),
    contact_name=st.sampled_from([None, "Ada"]),
    metadata=st.sampled_from([None, {"a": 1, "b": [None]}]),
)
readings = st.builds(
    ProjectRows,
    projects=st.lists(projects, unique_by=lambda p: p.uid),
    skipped=st.just(0),
    skipped_uids=st.frozensets(st.sampled_from("abcd"), max_size=1),
)


def take(known: KnownProjects, endpoint: str, rows: ProjectRows, at: int) -> Sequence[object]:
    changes = known.changes(endpoint, rows)
    for change in changes:
        known.apply(change, at)
    return changes


@given(st.lists(readings, min_size=1, max_size=6))
def test_the_log_tells_what_the_lims_listed(history: list[ProjectRows]) -> None:
    known = KnownProjects()
    take(known, ELSEWHERE, ProjectRows([Project("x", "X-1", "elsewhere", ProjectStatus.ACTIVE)]), 7)
    for at, rows in enumerate(history, start=100):
        unusable = {uid: p for uid, p in known.of(HERE).items() if uid in rows.skipped_uids}
        changes = take(known, HERE, rows, at)
        assert dict(known.of(HERE)) == {**unusable, **{p.uid: recorded(p) for p in rows.projects}}
        assert isinstance(changes[-1], facts.LimsProjectsRead) if changes else known.read_ns(HERE) is not None
        assert known.changes(HERE, rows) == ()
    assert list(known.of(ELSEWHERE)) == ["x"]
    assert known.read_ns(ELSEWHERE) == 7


def test_an_empty_first_reading_is_told_too() -> None:
    known = KnownProjects()
    assert known.read_ns(HERE) is None
    assert [type(c) for c in take(known, HERE, ProjectRows([]), 5)] == [facts.LimsProjectsRead]
    assert known.read_ns(HERE) == 5


def test_a_log_keeps_neither_people_nor_free_text() -> None:
    secret = "only the LIMS knows this"
    told = recorded(Project("u", "s", "n", ProjectStatus.ACTIVE, owner=secret, contact_name=secret, description=secret))
    assert secret.encode() not in told.SerializeToString()
    assert told != recorded(Project("u", "s", "n", ProjectStatus.ACTIVE, owner=secret))


def test_a_project_has_a_stream_of_its_own_in_each_lims() -> None:
    project = recorded(Project("u", "s", "n", ProjectStatus.ACTIVE))
    here = stream_of(facts.LimsProjectAdded(endpoint=HERE, project=project))
    assert here == stream_of(facts.LimsProjectChanged(endpoint=HERE, old=project, new=project))
    assert here == stream_of(facts.LimsProjectRemoved(endpoint=HERE, project=project))
    assert here != stream_of(facts.LimsProjectAdded(endpoint=ELSEWHERE, project=project))
