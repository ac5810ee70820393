"""EventLogService over a service's own log, ready to publish: every service that keeps a log serves it alike."""

from __future__ import annotations

import asyncio

from labferry.events.v1 import event_log_service_pb2_grpc as pb_grpc
from libs.event_log.blob_store import BlobStore
from libs.event_log.checkpoint_keeper import CheckpointKeeper
from libs.event_log.event import EventTypes
from libs.event_log.projection import ProjectionRunner
from libs.event_log.servicer import EventLogServicer
from libs.event_log.store import EventStore
from libs.service_kit.identity import ADMINS, OPERATORS, READERS
from libs.service_kit.server import PublishedService
from libs.service_kit.version import LABFERRY_VERSION

_ROLES = {
    "GetServerInfo": READERS,
    "ReadEvents": READERS,
    "SubscribeEvents": READERS,
    "VerifyLog": READERS,
    "RebuildProjections": OPERATORS,
    "ExportEvents": READERS,
    "BackUp": ADMINS,
    "ListCheckpoints": READERS,
}


def publish_event_log(
    store: EventStore,
    event_types: EventTypes,
    projections: ProjectionRunner | None,
    draining: asyncio.Event,
    *,
    blobs: BlobStore | None = None,
    checkpoints: CheckpointKeeper | None = None,
) -> PublishedService:
    """`projections` None: a service without read models. `blobs` None: no event names any."""
    servicer = EventLogServicer(
        store, event_types, projections, LABFERRY_VERSION, draining, blobs=blobs, checkpoints=checkpoints
    )
    return PublishedService(
        "labferry.events.v1.EventLogService",
        servicer,
        pb_grpc.add_EventLogServiceServicer_to_server,
        _ROLES,
        unbounded=frozenset({"VerifyLog", "RebuildProjections"}),
    )
