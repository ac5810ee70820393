"""A watcher that stops reading: it is cut off with the place where it can go on, and loses nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog

from labferry.lims.v1 import lims_service_pb2 as pb
from labferry.lims.v1 import lims_service_pb2_grpc as pb_grpc
from libs.event_log.errors import as_labferry_error
from libs.event_log.memory_store import MemoryEventStore
from libs.service_kit import call
from libs.service_kit.call_log import CallLog
from libs.service_kit.identities import ensure_identities
from libs.service_kit.identity import OPERATOR_TOKEN_FILE
from libs.service_kit.server import ServiceServer
from libs.service_kit.settings import LoggingSettings
from services.lims_gateway.projects import servicer
from services.lims_gateway.projects.directories import Directories
from services.lims_gateway.projects.history import ProjectHistory
from services.lims_gateway.projects.project import Project, ProjectRows, ProjectStatus
from services.lims_gateway.projects.watch import ProjectWatch
from tests.integration.secrets.running_service import error_info

HERE = "https://lims.example"
PROJECTS = 12_000


class Followed:
    """As much of a Directory as a watcher needs."""

    base = HERE

    def followed(self) -> Any:
        return self

    def __enter__(self) -> None:
        return

    def __exit__(self, *_: object) -> None:
        return


def listed(renamed: str) -> ProjectRows:
    """More than a connection buffers."""
    return ProjectRows(
        [Project(f"uid-{n}", f"PROJ-{n}", renamed + "x" * 200, ProjectStatus.ACTIVE, n) for n in range(PROJECTS)]
    )


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[tuple[ProjectHistory, Any]]:
    store = MemoryEventStore(service="lims_gateway", version="0")
    history = await ProjectHistory.load(store)
    await history.record(HERE, listed("before "))
    logger, draining = structlog.get_logger(), asyncio.Event()
    directory: Any = Followed()
    published = servicer.publish(Directories((directory,)), ProjectWatch(store, history, draining))
    log = CallLog(LoggingSettings(), "lims_gateway", logger)
    address = f"unix:{tmp_path}/g.sock"
    server = ServiceServer(address, (published,), ensure_identities(tmp_path), logger, log, as_labferry_error)
    await server.start()
    token = (tmp_path / OPERATOR_TOKEN_FILE).read_text()
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = pb_grpc.LimsServiceStub(channel)
        yield history, lambda request: stub.WatchProjects(request, metadata=(("authorization", f"Bearer {token}"),))
    await server.drain(draining, 1)
    await store.close()


@pytest.mark.timeout(120)
async def test_it_is_cut_off_and_resumes_without_a_gap(
    watched: tuple[ProjectHistory, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    history, follow = watched
    following = follow(pb.WatchProjectsRequest())
    known: dict[str, str] = {}
    token = ""
    while not token:
        token = take(await following.read(), known)
    assert len(known) == PROJECTS
    monkeypatch.setattr(call, "READER_SECONDS", 0.3)
    await history.record(HERE, listed("after "))
    # The first change arrives; then nothing is taken until the service has given up on this reader.
    token = take(await following.read(), known)
    before = len(asyncio.all_tasks())
    async with asyncio.timeout(60):
        while len(asyncio.all_tasks()) >= before:
            await asyncio.sleep(0.02)
    with pytest.raises(grpc.aio.AioRpcError) as cut:
        while (message := await following.read()) is not grpc.aio.EOF:
            token = take(message, known)
    info = error_info(cut.value)
    assert (cut.value.code(), info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "SUBSCRIBER_TOO_SLOW")
    assert info.metadata["resume_token"] == token
    assert any(name.startswith("before ") for name in known.values())
    again = follow(pb.WatchProjectsRequest(resume_token=token))
    while (message := await again.read()).WhichOneof("update") != "in_step":
        take(message, known)
    assert all(name.startswith("after ") for name in known.values())
    again.cancel()


def take(message: pb.WatchProjectsResponse, known: dict[str, str]) -> str:
    """Notes what a message tells; its token."""
    match message.WhichOneof("update"):
        case "added":
            known[message.added.uid] = message.added.name
        case "changed":
            assert known[message.changed.new.uid] == message.changed.old.name
            known[message.changed.new.uid] = message.changed.new.name
    return message.resume_token
