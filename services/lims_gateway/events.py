"""The event types of the gateway's log."""

from __future__ import annotations

from labferry.events.v1 import log_events_pb2
from libs.event_log.event import EventType, EventTypes

EVENT_TYPES = EventTypes((EventType("log.store_created.v1", log_events_pb2.StoreCreated),))
