"""The event types of the gateway's log."""

from __future__ import annotations

from labferry.events.v1 import lims_events_pb2
from libs.event_log.event import EventType, EventTypes
from libs.event_log.genesis import LOG_EVENT_TYPES

_PROJECT_EVENT_TYPES = (
    EventType("lims.project.added.v1", lims_events_pb2.LimsProjectAdded),
    EventType("lims.project.changed.v1", lims_events_pb2.LimsProjectChanged),
    EventType("lims.project.removed.v1", lims_events_pb2.LimsProjectRemoved),
    EventType("lims.projects_read.v1", lims_events_pb2.LimsProjectsRead),
)

PROJECT_EVENT_NAMES = tuple(event_type.name for event_type in _PROJECT_EVENT_TYPES)

EVENT_TYPES = EventTypes((*LOG_EVENT_TYPES, *_PROJECT_EVENT_TYPES))
