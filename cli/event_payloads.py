"""Every payload that an event may carry: whoever shows or reads one imports this, so that its description is there."""

from __future__ import annotations

from labferry.events.v1 import (
    equipment_events_pb2,
    job_events_pb2,
    lims_events_pb2,
    log_events_pb2,
    run_events_pb2,
    secret_events_pb2,
    staging_events_pb2,
)

EVENT_PAYLOADS = (
    equipment_events_pb2,
    job_events_pb2,
    lims_events_pb2,
    log_events_pb2,
    run_events_pb2,
    secret_events_pb2,
    staging_events_pb2,
)
