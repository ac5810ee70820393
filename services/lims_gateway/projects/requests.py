"""What a request to LimsService must look like. Checked here, once; every wrong field is named."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.message import Message

from labferry.lims.v1 import lims_service_pb2 as pb
from libs.service_kit.errors import FieldViolation, InvalidRequestError
from services.lims_gateway.projects.paging import PageKey, ProjectFilter, decode_token
from services.lims_gateway.projects.project import ProjectStatus

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000
MAX_TEXT_CHARACTERS = 255

STATUSES = {
    pb.PROJECT_STATUS_PENDING: ProjectStatus.PENDING,
    pb.PROJECT_STATUS_ACTIVE: ProjectStatus.ACTIVE,
    pb.PROJECT_STATUS_COMPLETED: ProjectStatus.COMPLETED,
    pb.PROJECT_STATUS_ARCHIVED: ProjectStatus.ARCHIVED,
}


@dataclass(frozen=True, slots=True)
class ListRequest:
    """`refresh` is set on first pages alone: a list that is paged through asks the LIMS once."""

    wanted: ProjectFilter
    after: PageKey | None
    limit: int
    refresh: bool
    endpoint: str | None


def list_request(request: pb.ListProjectsRequest) -> ListRequest:
    wrong: list[FieldViolation] = []
    for index, status in enumerate(request.statuses):
        if status not in STATUSES:
            wrong.append(FieldViolation(f"statuses[{index}]", "must be PENDING, ACTIVE, COMPLETED or ARCHIVED"))
    if len(request.query) > MAX_TEXT_CHARACTERS or not request.query.isprintable():
        wrong.append(FieldViolation("query", f"must be at most {MAX_TEXT_CHARACTERS} printable characters"))
    if not 0 <= request.page_size <= MAX_PAGE_SIZE:
        wrong.append(FieldViolation("page_size", f"must be 1 to {MAX_PAGE_SIZE}, or 0 for {DEFAULT_PAGE_SIZE}"))
    if wrong:
        raise InvalidRequestError(*wrong)
    wanted = ProjectFilter(frozenset(STATUSES[s] for s in request.statuses), request.query)
    return ListRequest(
        wanted=wanted,
        after=decode_token(request.page_token, wanted) if request.page_token else None,
        limit=request.page_size or DEFAULT_PAGE_SIZE,
        refresh=request.refresh and not request.page_token,
        endpoint=endpoint_of(request),
    )


def endpoint_of(request: Message) -> str | None:
    """The LIMS that a request names; None: the default one."""
    return request.endpoint if request.HasField("endpoint") else None  # type: ignore[attr-defined]


def watch_request(request: pb.WatchProjectsRequest) -> None:
    """Checks what can't be asked together."""
    if request.every_endpoint and request.HasField("endpoint"):
        raise InvalidRequestError(FieldViolation("endpoint", "can't be given together with every_endpoint"))


def get_request(request: pb.GetProjectRequest) -> str:
    """The id that is asked for."""
    if not 1 <= len(request.id) <= MAX_TEXT_CHARACTERS or not request.id.isprintable():
        raise InvalidRequestError(
            FieldViolation("id", f"must be a uid or short id of 1 to {MAX_TEXT_CHARACTERS} printable characters")
        )
    return request.id
