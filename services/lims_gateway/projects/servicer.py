"""LimsService: protobuf to domain and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from labferry.lims.v1 import lims_service_pb2 as pb
from labferry.lims.v1 import lims_service_pb2_grpc as pb_grpc
from libs.service_kit.identity import READERS
from libs.service_kit.server import PublishedService
from services.lims_gateway.projects import requests
from services.lims_gateway.projects.directory import Directory, Source
from services.lims_gateway.projects.paging import encode_token
from services.lims_gateway.projects.project import Project

if TYPE_CHECKING:
    from grpc.aio import ServicerContext

    Context = ServicerContext[Any, Any]

FULL_NAME = "labferry.lims.v1.LimsService"

ROLES = {"ListProjects": READERS, "GetProject": READERS, "CheckHealth": READERS}

_STATUSES = {status: value for value, status in requests.STATUSES.items()}
_SOURCES = {Source.LIVE: pb.SOURCE_LIVE, Source.CACHE: pb.SOURCE_CACHE}


class LimsServicer(pb_grpc.LimsServiceServicer):
    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    async def ListProjects(self, request: pb.ListProjectsRequest, context: Context) -> pb.ListProjectsResponse:
        asked = requests.list_request(request)
        page = await self._directory.list_projects(
            asked.wanted, asked.after, asked.limit, refresh=asked.refresh, endpoint=asked.endpoint
        )
        response = pb.ListProjectsResponse(
            projects=[_project(p, page.provenance.fetched_ns) for p in page.projects],
            next_page_token=encode_token(page.next_key, asked.wanted) if page.next_key else "",
            source=_SOURCES[page.provenance.source],
            stale=page.provenance.stale,
            skipped_rows=page.provenance.skipped_rows,
            upstream_failure=page.provenance.upstream_failure,
        )
        response.freshness_time.FromNanoseconds(page.provenance.fetched_ns)
        return response

    async def GetProject(self, request: pb.GetProjectRequest, context: Context) -> pb.GetProjectResponse:
        found = await self._directory.get_project(requests.get_request(request))
        response = pb.GetProjectResponse(
            project=_project(found.project, found.provenance.fetched_ns),
            source=_SOURCES[found.provenance.source],
            stale=found.provenance.stale,
        )
        response.freshness_time.FromNanoseconds(found.provenance.fetched_ns)
        return response

    async def CheckHealth(self, request: pb.CheckHealthRequest, context: Context) -> pb.CheckHealthResponse:
        report = await self._directory.health()
        return pb.CheckHealthResponse(ok=report.ok, latency_ms=report.latency_ms, reason=report.reason)


def _project(project: Project, fetched_ns: int) -> pb.Project:
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
    message.metadata.update(project.metadata or {})
    message.created_time.FromNanoseconds(round(project.created_at * 1_000_000) * 1000)
    message.updated_time.FromNanoseconds(round(project.updated_at * 1_000_000) * 1000)
    message.fetched_time.FromNanoseconds(fetched_ns)
    return message


def publish(directory: Directory) -> PublishedService:
    return PublishedService(FULL_NAME, LimsServicer(directory), pb_grpc.add_LimsServiceServicer_to_server, ROLES)
