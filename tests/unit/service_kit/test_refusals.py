"""How many strangers' calls one host gets an answer to."""

from __future__ import annotations

import pytest

from libs.service_kit.refusals import MOST_A_MINUTE, RefusalLimit, host_of


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_host_waits_until_its_minute_is_over_and_no_other_does() -> None:
    clock = Clock()
    limit = RefusalLimit(clock)
    assert [limit.exceeded("ipv4:10.0.0.7") for _ in range(MOST_A_MINUTE)] == [0.0] * MOST_A_MINUTE
    clock.now += 20
    assert limit.exceeded("ipv4:10.0.0.7") == 40.0
    assert limit.exceeded("ipv4:10.0.0.8") == 0.0
    clock.now += 40
    assert limit.exceeded("ipv4:10.0.0.7") == 0.0


def test_a_flood_from_everywhere_is_remembered_in_bounds() -> None:
    limit = RefusalLimit(Clock())
    for number in range(50_000):
        limit.exceeded(f"ipv6:[2001:db8::{number:x}]")
    assert len(limit._windows) <= 1000


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:10.0.0.7:51234", "ipv4:10.0.0.7"),
        ("ipv6:[::1]:51234", "ipv6:[::1]"),
        ("ipv6:%5B::1%5D:51234", "ipv6:%5B::1%5D"),
        ("unix:", "unix"),
        ("unix:/run/x.sock", "unix"),
    ],
)
def test_the_host_of_a_peer(peer: str, host: str) -> None:
    assert host_of(peer) == host
