"""What the gateway's log tells of the projects, and what a new reading of the LIMS adds to it. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from google.protobuf.message import Message

from labferry.events.v1 import lims_events_pb2 as facts
from services.lims_gateway.projects.project import Project, ProjectRows

Change = facts.LimsProjectAdded | facts.LimsProjectChanged | facts.LimsProjectRemoved


class KnownProjects:
    """Folds the events of a log. Of each LIMS the projects by uid, and when it was last read with news."""

    def __init__(self) -> None:
        self._projects: dict[str, dict[str, facts.LimsProject]] = {}
        self._read_ns: dict[str, int] = {}

    def apply(self, fact: Message | None, recorded_ns: int) -> None:
        """Takes one event, the same one again without harm. Events of other kinds tell nothing of projects."""
        match fact:
            case facts.LimsProjectAdded():
                self._of(fact.endpoint)[fact.project.uid] = fact.project
            case facts.LimsProjectChanged():
                self._of(fact.endpoint)[fact.new.uid] = fact.new
            case facts.LimsProjectRemoved():
                self._of(fact.endpoint).pop(fact.project.uid, None)
            case facts.LimsProjectsRead():
                self._read_ns[fact.endpoint] = recorded_ns

    def of(self, endpoint: str) -> Mapping[str, facts.LimsProject]:
        return self._projects.get(endpoint, {})

    def read_ns(self, endpoint: str) -> int | None:
        """Nanoseconds since the epoch; None: never read, so that nothing is known of it."""
        return self._read_ns.get(endpoint)

    def changes(self, endpoint: str, rows: ProjectRows) -> Sequence[Message]:
        """The events of a reading, in an order that depends on nothing else; none when it shows nothing new.

        A project whose row can't be used is there all the same: it is not removed.
        """
        known = self.of(endpoint)
        listed = {project.uid: recorded(project) for project in rows.projects}
        changes: list[Message] = list(_changes(endpoint, known, listed, rows.skipped_uids))
        if not changes and self.read_ns(endpoint) is not None:
            return ()
        return (
            *changes,
            facts.LimsProjectsRead(endpoint=endpoint, count=len(listed), skipped_rows=rows.skipped),
        )

    def _of(self, endpoint: str) -> dict[str, facts.LimsProject]:
        return self._projects.setdefault(endpoint, {})


def _changes(
    endpoint: str,
    known: Mapping[str, facts.LimsProject],
    listed: Mapping[str, facts.LimsProject],
    unusable: frozenset[str],
) -> Iterable[Change]:
    for uid in sorted(known.keys() - listed.keys() - unusable):
        yield facts.LimsProjectRemoved(endpoint=endpoint, project=known[uid])
    for uid, project in sorted(listed.items()):
        old = known.get(uid)
        if old is None:
            yield facts.LimsProjectAdded(endpoint=endpoint, project=project)
        elif old != project:
            yield facts.LimsProjectChanged(endpoint=endpoint, old=old, new=project)


def recorded(project: Project) -> facts.LimsProject:
    """What the log keeps of a project."""
    rest = (project.description, project.contact_name, project.owner, project.metadata)
    return facts.LimsProject(
        id=project.id,
        uid=project.uid,
        short_id=project.short_id,
        name=project.name,
        status=project.status.value,
        created_at=project.created_at,
        updated_at=project.updated_at,
        rest_sha256=hashlib.sha256(msgspec.json.encode(rest, order="deterministic")).digest(),
    )


def stream_of(fact: Message) -> str:
    """The stream of the log that an event belongs to. ValueError for an event that tells nothing of a LIMS."""
    match fact:
        case facts.LimsProjectAdded() | facts.LimsProjectRemoved():
            return f"project-{_short_name(fact.endpoint)}/{fact.project.uid}"
        case facts.LimsProjectChanged():
            return f"project-{_short_name(fact.endpoint)}/{fact.new.uid}"
        case facts.LimsProjectsRead():
            return f"lims-{_short_name(fact.endpoint)}"
    raise ValueError(f"{type(fact).__name__} tells nothing of a LIMS")


def _short_name(endpoint: str) -> str:
    return hashlib.sha256(endpoint.encode()).hexdigest()[:12]
