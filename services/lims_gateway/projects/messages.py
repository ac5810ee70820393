"""Projects, and what is told of them, as protobuf messages."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from labferry.events.v1 import lims_events_pb2 as facts
from labferry.lims.v1 import lims_service_pb2 as pb
from services.lims_gateway.projects import requests
from services.lims_gateway.projects.policy import Provenance, Source
from services.lims_gateway.projects.project import Project, ProjectStatus
from services.lims_gateway.projects.upstream import LimsUser
from services.lims_gateway.projects.watch import InStep, WatchStep

SOURCES = {
    Source.LIVE: pb.SOURCE_LIVE,
    Source.CACHE: pb.SOURCE_CACHE,
    Source.OFFLINE_CATALOGUE: pb.SOURCE_OFFLINE_CATALOGUE,
}
_STATUSES = {status: value for value, status in requests.STATUSES.items()}


def project_message(project: Project, fetched_ns: int | None) -> pb.Project:
    message = pb.Project(
        id=project.id,
        uid=project.uid,
        short_id=project.short_id,
        name=project.name,
        description=project.description,
        status=_STATUSES[project.status],
        contact_name=project.contact_name,
        owner=project.owner,
    )
    if project.metadata:
        message.metadata.update(project.metadata)
    else:
        message.metadata.SetInParent()
    _set_seconds(message.created_time, project.created_at)
    _set_seconds(message.updated_time, project.updated_at)
    set_time(message.fetched_time, fetched_ns)
    return message


def set_provenance(response: pb.ListProjectsResponse | pb.GetProjectResponse, provenance: Provenance) -> None:
    response.source = SOURCES[provenance.source]
    response.stale = provenance.stale
    response.upstream_failure = provenance.upstream_failure
    response.produced_by = provenance.produced_by
    set_time(response.freshness_time, provenance.fetched_ns)
    set_time(response.produced_at, provenance.produced_ns)


def user_message(user: LimsUser) -> pb.User:
    message = pb.User(id=user.id, uid=user.uid, email=user.email, role=user.role)
    _set_seconds(message.created_time, user.created_at)
    _set_seconds(message.updated_time, user.updated_at)
    return message


def watch_message(step: WatchStep) -> pb.WatchProjectsResponse:
    told = step.told
    message = pb.WatchProjectsResponse(resume_token=step.token, endpoint=told.endpoint)
    match told:
        case InStep():
            message.in_step.SetInParent()
            set_time(message.in_step.read_time, told.read_ns)
        case facts.LimsProjectAdded():
            message.added.CopyFrom(_recorded_message(told.project))
        case facts.LimsProjectRemoved():
            message.removed.CopyFrom(_recorded_message(told.project))
        case facts.LimsProjectChanged():
            message.changed.old.CopyFrom(_recorded_message(told.old))
            message.changed.new.CopyFrom(_recorded_message(told.new))
    return message


def set_time(field: Timestamp, nanoseconds: int | None) -> None:
    """Leaves the field absent for None."""
    if nanoseconds is not None:
        field.FromNanoseconds(nanoseconds)


def _recorded_message(project: facts.LimsProject) -> pb.Project:
    message = pb.Project(
        id=project.id,
        uid=project.uid,
        short_id=project.short_id,
        name=project.name,
        status=_STATUSES[ProjectStatus(project.status)],
    )
    _set_seconds(message.created_time, project.created_at if project.HasField("created_at") else None)
    _set_seconds(message.updated_time, project.updated_at if project.HasField("updated_at") else None)
    return message


def _set_seconds(field: Timestamp, seconds: float | None) -> None:
    # Microseconds: a double of this size holds no finer.
    set_time(field, None if seconds is None else round(seconds * 1_000_000) * 1000)
