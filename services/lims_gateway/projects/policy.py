"""Which source answers, and what an answer says about itself (SPEC §6). Pure.

The fresh cache, else the LIMS, else the cache marked stale, else the catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, StrEnum


class Source(StrEnum):
    LIVE = "live"
    CACHE = "cache"
    OFFLINE_CATALOGUE = "offline_catalogue"


@dataclass(frozen=True, slots=True)
class CacheState:
    """The last refresh. `fetched_ns`: when the LIMS was asked, nanoseconds since the epoch."""

    fetched_ns: int
    count: int
    skipped: int


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where an answer came from. `fetched_ns`: when the LIMS was asked for it, nanoseconds since the epoch; None when a
    catalogue doesn't say.

    `stale`: older than the time to live, or served because the LIMS could not be asked; `upstream_failure` says why.
    `produced_by` and `produced_ns` are the catalogue's.
    """

    source: Source
    fetched_ns: int | None
    stale: bool
    skipped_rows: int = 0
    upstream_failure: str = ""
    produced_by: str = ""
    produced_ns: int | None = None


class AskFailure(Enum):
    """How asking the LIMS went wrong. REFUSED: it answers, and doesn't let us in; somebody must look at that, and no
    older answer may hide it. NOT_KEPT: it answered, and the gateway could not write that down, so it doesn't count."""

    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    NOT_KEPT = "not_kept"


def is_fresh(cache: CacheState | None, now_ns: int, ttl_ns: int) -> bool:
    """An empty cache never is, nor one whose time lies ahead: that comes from a clock that was wrong once."""
    return cache is not None and cache.count > 0 and 0 <= now_ns - cache.fetched_ns < ttl_ns


def must_ask(cache: CacheState | None, now_ns: int, ttl_ns: int, *, refresh: bool) -> bool:
    """Whether the LIMS is asked before the answer. `refresh`: the caller wants that in any case."""
    return refresh or not is_fresh(cache, now_ns, ttl_ns)


def fall_back(cache: CacheState | None, failure: AskFailure) -> Source | None:
    """What answers when the LIMS could not be asked; None: nothing may. The catalogue may be absent all the same."""
    if failure is AskFailure.REFUSED:
        return None
    if cache is not None and cache.count > 0:
        return Source.CACHE
    return Source.OFFLINE_CATALOGUE if failure is AskFailure.UNREACHABLE else None


def as_read(provenance: Provenance, cache: CacheState | None) -> Provenance:
    """What an answer from the cache says when the cache was refreshed between the decision and the reading."""
    if cache is None or cache.fetched_ns == provenance.fetched_ns:
        return provenance
    return replace(
        provenance,
        fetched_ns=cache.fetched_ns,
        stale=provenance.stale and cache.fetched_ns < (provenance.fetched_ns or 0),
        skipped_rows=cache.skipped,
    )
