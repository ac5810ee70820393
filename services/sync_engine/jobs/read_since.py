"""The date of what a reading found: when it began, since no file of it was read earlier. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

from labferry.events.v1 import job_events_pb2 as events

Reading = events.JobVerified | events.JobVerificationFailed | events.JobFilesScrubbed


def read_since(reading: Reading, recorded: datetime) -> datetime:
    """A reading can give way to transfers for a day before it is `recorded`. One that doesn't tell is dated by that."""
    if not reading.HasField("begun_time"):
        return recorded
    return min(recorded, reading.begun_time.ToDatetime(tzinfo=UTC))
