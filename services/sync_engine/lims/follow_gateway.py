"""Follows the projects that the LIMS gateway knows, so that no question about a run ever waits for gateway or LIMS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc
from grpc.aio import Channel

from labferry.lims.v1 import lims_service_pb2 as pb
from labferry.lims.v1 import lims_service_pb2_grpc as pb_grpc
from libs.run_tree.lims_project import NamedLimsProject
from libs.service_kit.channel import TokenFile, open_channel
from libs.service_kit.identity import ServiceName, service_token_file
from libs.service_kit.run import ServiceEnvironment
from libs.service_kit.telemetry import Logger
from services.sync_engine.lims.known_projects import KnownLimsProjects

if TYPE_CHECKING:
    from labferry.lims.v1.lims_service_pb2_grpc import LimsServiceAsyncStub

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
# Attempts in a row: a gateway that is only restarted is there again before.
_AWAY_AFTER = 4
# The token is of no use any more: another log, or one that was cut.
_BEGIN_ANEW = frozenset(
    {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.OUT_OF_RANGE}
)


class GatewayFollower:
    """Keeps `known` up with the gateway, from `start` to `close`. `changed` is called after each whole list.

    A gateway that comes back soon is resumed where it was; one that stays away makes everything unknown.
    """

    def __init__(self, channel: Channel, known: KnownLimsProjects, changed: Callable[[], None], logger: Logger) -> None:
        self._gateway: LimsServiceAsyncStub = pb_grpc.LimsServiceStub(channel)
        self._known = known
        self._changed = changed
        self._logger = logger
        self._token = ""
        self._absences = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="gateway follower")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        while True:
            try:
                await self._follow()
            except grpc.aio.AioRpcError as error:
                self._broke_off(error)
            pause = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** min(self._absences, 10))
            await asyncio.sleep(pause)

    async def _follow(self) -> None:
        if not self._token:
            self._known.begin()
        request = pb.WatchProjectsRequest(every_endpoint=True, resume_token=self._token)
        async for update in self._gateway.WatchProjects(request):
            self._take(update)
            self._token = update.resume_token or self._token
            self._absences = 0

    def _take(self, update: pb.WatchProjectsResponse) -> None:
        match update.WhichOneof("update"):
            case "added":
                self._known.put(update.endpoint, _named(update.added))
            case "changed":
                self._known.put(update.endpoint, _named(update.changed.new))
            case "removed":
                self._known.remove(update.endpoint, update.removed.uid)
            case "in_step":
                self._known.in_step(update.endpoint, was_read=update.in_step.HasField("read_time"))
                self._changed()

    def _broke_off(self, error: grpc.aio.AioRpcError) -> None:
        self._absences += 1
        if error.code() in _BEGIN_ANEW:
            self._token = ""
        if self._absences == _AWAY_AFTER:
            self._logger.warning("lims_gateway_away", problem=error.details())
            self._known.forget()
            self._token = ""
            self._changed()


def _named(project: pb.Project) -> NamedLimsProject:
    return NamedLimsProject(project.uid, project.short_id, project.name)


@asynccontextmanager
async def following_gateway(
    environment: ServiceEnvironment, known: KnownLimsProjects, changed: Callable[[], None]
) -> AsyncIterator[None]:
    """Follows while it is entered. Where no LIMS is configured there is nothing to follow."""
    if not any(environment.settings.lims.all()):
        yield
        return
    token_file = service_token_file(environment.settings.state_dir, ServiceName.SYNC_ENGINE)
    token = await asyncio.to_thread(TokenFile, token_file)
    async with open_channel(
        environment.settings.reached_at(ServiceName.LIMS_GATEWAY), token, environment.settings.tls
    ) as channel:
        follower = GatewayFollower(channel, known, changed, environment.logger)
        follower.start()
        try:
            yield
        finally:
            await follower.close()
