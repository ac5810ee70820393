"""A log with checkpoints and blobs, kept and served as a service does it, on a real server in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
import yaml

from labferry.events.v1 import event_log_service_pb2 as pb
from labferry.events.v1 import event_log_service_pb2_grpc
from labferry.events.v1.job_events_pb2 import JobSealed
from libs.event_log.blob_store import BlobStore
from libs.event_log.checkpoint_keeper import CheckpointKeeper, keeping_checkpoints
from libs.event_log.errors import as_labferry_error
from libs.event_log.event import EventType, EventTypes, NewEvent
from libs.event_log.genesis import LOG_EVENT_TYPES
from libs.event_log.published import publish_event_log
from libs.event_log.sqlite_store import SqliteEventStore
from libs.service_kit.call_log import CallLog
from libs.service_kit.channel import open_channel, read_token
from libs.service_kit.identities import Identities, ensure_identities
from libs.service_kit.identity import OPERATOR_TOKEN_FILE
from libs.service_kit.server import ServiceServer
from libs.service_kit.settings import CheckpointSettings, LoggingSettings
from tests.integration.event_log.events import COUNTED, NOTED

SERVICE = "sync_engine"
SEALED = EventType("test.sealed.v1", JobSealed)
TYPES = EventTypes((*LOG_EVENT_TYPES, NOTED, COUNTED, SEALED))


def sealed(digest: str) -> NewEvent:
    """An event that names a blob."""
    return TYPES.new_event(JobSealed(snapshot_blob=digest), actor="tester")


@dataclass(frozen=True)
class Place:
    """Where everything lies: `outside` is the folder that the database's owner doesn't rule."""

    folder: Path

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def service(self) -> Path:
        return self.state / SERVICE

    @property
    def database(self) -> Path:
        return self.service / "events.sqlite3"

    @property
    def outside(self) -> Path:
        return self.folder / "outside"

    @property
    def config(self) -> Path:
        return self.folder / "labferry.yaml"

    def checkpoint_files(self) -> Sequence[Path]:
        """In the state folder, and outside."""
        return [*(self.service / "checkpoints").glob("*.jsonl"), *self.outside.glob("*.jsonl")]

    def blob(self, digest: str) -> Path:
        return self.service / "blobs" / digest[:2] / digest


@dataclass
class ServedLog:
    """A served log and a stub on it."""

    place: Place
    store: SqliteEventStore
    blobs: BlobStore
    keeper: CheckpointKeeper
    identities: Identities
    address: str
    stub: event_log_service_pb2_grpc.EventLogServiceAsyncStub

    async def verify(self, **request: int | bool) -> pb.VerifyLogResponse:
        answer: pb.VerifyLogResponse = await self.stub.VerifyLog(pb.VerifyLogRequest(**request))
        return answer


@asynccontextmanager
async def serving(place: Place, *, every_events: int = 1_000) -> AsyncIterator[ServedLog]:
    place.outside.mkdir(exist_ok=True)
    settings = CheckpointSettings(folders=(place.outside,), every_events=every_events, every_minutes=60)
    logger = structlog.get_logger()
    draining = asyncio.Event()
    identities = ensure_identities(place.state)
    store = await SqliteEventStore.open(place.database, service=SERVICE, version="1.2.3")
    try:
        blobs = BlobStore(place.service / "blobs")
        async with keeping_checkpoints(store, SERVICE, place.service, settings, logger) as keeper:
            published = publish_event_log(store, TYPES, None, draining, blobs=blobs, checkpoints=keeper)
            log = CallLog(LoggingSettings(), SERVICE, logger)
            server = ServiceServer("127.0.0.1:0", [published], identities, logger, log, as_labferry_error)
            address = await server.start()
            listen = {"sync_engine": address, "secrets": "unix:/nowhere/1", "lims_gateway": "unix:/nowhere/2"}
            text = yaml.safe_dump({"state_dir": str(place.state), "listen": listen})
            place.config.write_text(text, encoding="utf-8")
            token = read_token(place.state / OPERATOR_TOKEN_FILE)
            async with open_channel(address, lambda: token) as channel:
                stub: event_log_service_pb2_grpc.EventLogServiceAsyncStub
                stub = event_log_service_pb2_grpc.EventLogServiceStub(channel)
                yield ServedLog(place, store, blobs, keeper, identities, address, stub)
            await server.drain(draining, 1)
    finally:
        await store.close()
