"""A receipt names the transport of a reading that was recorded before readings told theirs."""

from __future__ import annotations

import pytest

from labferry.events.v1.job_events_pb2 import JobVerified
from services.sync_engine.receipts.issue import transport_of


@pytest.mark.parametrize(
    ("method", "transport"),
    [
        ("uncached_read", "mounted"),
        ("far_sha256sum", "rsync_ssh"),
        ("far_sha256", "rclone"),
        ("download", "rclone"),
        ("by hand", ""),
    ],
)
def test_by_the_method_alone(method: str, transport: str) -> None:
    assert transport_of(JobVerified(method=method)) == transport


def test_what_the_event_says_comes_first() -> None:
    assert transport_of(JobVerified(method="uncached_read", transport="rclone")) == "rclone"
