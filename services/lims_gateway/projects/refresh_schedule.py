"""When a cache is refreshed without being asked. Pure.

Before it expires, so that nobody waits for the LIMS; and more often while somebody follows the projects.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.lims_gateway.projects.policy import AskFailure, CacheState

_SECOND_NS = 1_000_000_000
_LEAST_NS = _SECOND_NS
_FIRST_PAUSE_NS = 30 * _SECOND_NS
_LONGEST_PAUSE_NS = 600 * _SECOND_NS
# A LIMS may lock an account that logs in wrongly again and again.
_REFUSED_PAUSE_NS = 3600 * _SECOND_NS
_SHARE_OF_TTL = 0.9


@dataclass(frozen=True, slots=True)
class Attempts:
    """What came of asking lately. `last_ns`: when it was last tried; `in_a_row`: failures since the last success."""

    last_ns: int = 0
    in_a_row: int = 0
    failure: AskFailure | None = None

    def failed(self, now_ns: int, failure: AskFailure) -> Attempts:
        return Attempts(now_ns, self.in_a_row + 1, failure)


def due_ns(cache: CacheState | None, ttl_ns: int, watch_ns: int | None, attempts: Attempts) -> int | None:
    """When to ask, nanoseconds since the epoch; None: not until somebody asks or follows.

    `watch_ns`: how often while somebody follows; None while nobody does.
    """
    if cache is None or cache.count == 0:
        if watch_ns is None:
            return None
        due = 0 if cache is None else cache.fetched_ns + watch_ns
    else:
        age = int(ttl_ns * _SHARE_OF_TTL)
        due = cache.fetched_ns + (age if watch_ns is None else min(age, watch_ns))
    if cache is not None and cache.fetched_ns >= attempts.last_ns:
        # Somebody else's question was answered since.
        return max(due, cache.fetched_ns + _LEAST_NS)
    return max(due, attempts.last_ns + _pause_ns(attempts))


def _pause_ns(attempts: Attempts) -> int:
    if attempts.failure is AskFailure.REFUSED:
        return _REFUSED_PAUSE_NS
    if attempts.in_a_row == 0:
        return _LEAST_NS
    return min(_LONGEST_PAUSE_NS, _FIRST_PAUSE_NS << min(attempts.in_a_row - 1, 10))
