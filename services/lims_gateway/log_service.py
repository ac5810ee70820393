"""EventLogService over the gateway's own log."""

from __future__ import annotations

import asyncio

from labferry.events.v1 import event_log_service_pb2_grpc as pb_grpc
from libs.event_log.servicer import EventLogServicer
from libs.event_log.store import EventStore
from libs.service_kit.identity import OPERATORS, READERS
from libs.service_kit.server import PublishedService
from libs.service_kit.version import LABFERRY_VERSION
from services.lims_gateway.events import EVENT_TYPES

_ROLES = {
    "GetServerInfo": READERS,
    "ReadEvents": READERS,
    "SubscribeEvents": READERS,
    "VerifyLog": READERS,
    "RebuildProjections": OPERATORS,
}


def publish(store: EventStore, draining: asyncio.Event) -> PublishedService:
    """The log and its roles, as one service to publish."""
    return PublishedService(
        "labferry.events.v1.EventLogService",
        EventLogServicer(store, EVENT_TYPES, None, LABFERRY_VERSION, draining),
        pb_grpc.add_EventLogServiceServicer_to_server,
        _ROLES,
        unbounded=frozenset({"VerifyLog", "RebuildProjections"}),
    )
