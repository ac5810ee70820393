"""LimsService: protobuf to domain and back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from labferry.lims.v1 import lims_service_pb2 as pb
from labferry.lims.v1 import lims_service_pb2_grpc as pb_grpc
from libs.service_kit.errors import SubscriberTooSlowError
from libs.service_kit.identity import READERS
from libs.service_kit.server import PublishedService
from services.lims_gateway.projects import requests
from services.lims_gateway.projects.directories import Directories
from services.lims_gateway.projects.messages import (
    project_message,
    set_provenance,
    set_time,
    user_message,
    watch_message,
)
from services.lims_gateway.projects.paging import encode_token
from services.lims_gateway.projects.watch import ProjectWatch

if TYPE_CHECKING:
    from grpc.aio import ServicerContext

    Context = ServicerContext[Any, Any]

FULL_NAME = "labferry.lims.v1.LimsService"

ROLES = {
    "ListProjects": READERS,
    "GetProject": READERS,
    "CheckHealth": READERS,
    "GetCurrentUser": READERS,
    "RefreshProjects": READERS,
    "WatchProjects": READERS,
}


class LimsServicer(pb_grpc.LimsServiceServicer):
    def __init__(self, directories: Directories, watch: ProjectWatch) -> None:
        self._directories = directories
        self._watch = watch

    async def ListProjects(self, request: pb.ListProjectsRequest, context: Context) -> pb.ListProjectsResponse:
        asked = requests.list_request(request)
        directory = self._directories.of(asked.endpoint)
        found = await directory.list_projects(asked.wanted, asked.after, asked.limit, refresh=asked.refresh)
        page, provenance = found.page, found.provenance
        response = pb.ListProjectsResponse(
            projects=[project_message(p, provenance.fetched_ns) for p in page.projects],
            next_page_token=encode_token(page.next_key, asked.wanted) if page.next_key else "",
            skipped_rows=provenance.skipped_rows,
        )
        set_provenance(response, provenance)
        return response

    async def GetProject(self, request: pb.GetProjectRequest, context: Context) -> pb.GetProjectResponse:
        id_ = requests.get_request(request)
        found = await self._directories.of(requests.endpoint_of(request)).get_project(id_)
        response = pb.GetProjectResponse(project=project_message(found.project, found.provenance.fetched_ns))
        set_provenance(response, found.provenance)
        return response

    async def CheckHealth(self, request: pb.CheckHealthRequest, context: Context) -> pb.CheckHealthResponse:
        report = await self._directories.health(requests.endpoint_of(request))
        return pb.CheckHealthResponse(ok=report.ok, latency_ms=report.latency_ms, reason=report.reason)

    async def GetCurrentUser(self, request: pb.GetCurrentUserRequest, context: Context) -> pb.User:
        return user_message(await self._directories.of(requests.endpoint_of(request)).current_user())

    async def RefreshProjects(self, request: pb.RefreshProjectsRequest, context: Context) -> pb.RefreshProjectsResponse:
        fetched = await self._directories.of(requests.endpoint_of(request)).refresh()
        response = pb.RefreshProjectsResponse(count=fetched.count, skipped_rows=fetched.skipped)
        set_time(response.fetched_at, fetched.fetched_ns)
        return response

    async def WatchProjects(
        self, request: pb.WatchProjectsRequest, context: Context
    ) -> AsyncIterator[pb.WatchProjectsResponse]:
        requests.watch_request(request)
        every = request.every_endpoint
        wanted = self._directories.every() if every else (self._directories.of(requests.endpoint_of(request)),)
        async with aclosing(self._watch.follow(wanted, request.resume_token)) as steps:
            async for step in steps:
                try:
                    yield watch_message(step)
                except SubscriberTooSlowError as error:
                    where = {"resume_token": step.token}
                    raise SubscriberTooSlowError("the reader took nothing for too long", metadata=where) from error


def publish(directories: Directories, watch: ProjectWatch) -> PublishedService:
    servicer = LimsServicer(directories, watch)
    return PublishedService(FULL_NAME, servicer, pb_grpc.add_LimsServiceServicer_to_server, ROLES)
