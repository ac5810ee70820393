"""The event types of the gateway's log."""

from __future__ import annotations

from libs.event_log.event import EventTypes
from libs.event_log.genesis import LOG_EVENT_TYPES

EVENT_TYPES = EventTypes(LOG_EVENT_TYPES)
