"""An export: a range of the log as JSON Lines, from a head that names the log to an end that is signed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence

import msgspec

from labferry.events.v1.log_events_pb2 import LogExported, StoreCreated
from libs.event_log import event_line
from libs.event_log.checkpoint import checkpoint_time, to_line
from libs.event_log.event import EventTypes, RecordedEvent
from libs.event_log.genesis import copy_record
from libs.event_log.hash_chain import FIRST_PREVIOUS_HASH, ChainCheck
from libs.event_log.kept_log import KeptLog
from libs.event_log.store import EventStore, LogDamagedError, PositionBeyondHeadError

LAYOUT = "labferry.export.v1"
END_LAYOUT = "labferry.export_end.v1"


async def record_export(
    store: EventStore, first: int, last: int | None, *, actor: str, reason: str, correlation_id: str
) -> int:
    """Records who gets which range, before anything of it is given. Gives the range's last position.

    `last` None: the record itself is the last. PositionBeyondHeadError.
    """
    for position in (first, last or first):
        if position > store.head:
            raise PositionBeyondHeadError(position, store.head)
    told = LogExported(first_position=first, last_position=last or store.head)
    record = copy_record(told, actor=actor, reason=reason, correlation_id=correlation_id)
    recorded = await store.append([record])
    return last or recorded.events[0].position


async def export_chunks(log: KeptLog, first: int, last: int) -> AsyncGenerator[bytes, None]:
    """The export's bytes. LogDamagedError where the chain breaks: what was given till then is good."""
    store = log.store
    previous = FIRST_PREVIOUS_HASH
    if first > 1:
        async for page in store.read(first - 2, upto=first - 1):
            previous = page[-1].hash
    head = {
        "layout": LAYOUT,
        "store_id": store.store_id,
        "service": (await first_event(store))[1].service,
        "made_time": checkpoint_time(time.time_ns()),
        "first_position": first,
        "last_position": last,
        "previous_hash": previous.hex(),
    }
    yield msgspec.json.encode(head) + b"\n"
    chain = ChainCheck(store.store_id, first_position=first, previous=previous)
    async for page in store.read(first - 1, upto=last):
        yield await asyncio.to_thread(checked_lines, chain, page, log.event_types)
    require_whole(chain, first, last)
    end: dict[str, object] = {"layout": END_LAYOUT, "events": chain.checked, "head_hash": chain.hash.hex()}
    if log.checkpoints is not None:
        end["checkpoint"] = msgspec.Raw(to_line(await log.checkpoints.make(last)).rstrip())
    yield msgspec.json.encode(end) + b"\n"


async def first_event(store: EventStore) -> tuple[RecordedEvent, StoreCreated]:
    """The log's first event and what it says. LogDamagedError when it isn't there."""
    async for page in store.read(0, upto=1):
        return page[0], StoreCreated.FromString(page[0].payload)
    raise LogDamagedError(1, "the first event is missing")


def checked_lines(chain: ChainCheck, events: Sequence[RecordedEvent], event_types: EventTypes) -> bytes:
    """Events as lines, once they proved to follow. LogDamagedError."""
    if (found := chain.check(events)) is not None:
        raise LogDamagedError(found.position, found.reason)
    return b"".join(event_line.to_line(event, event_types) for event in events)


def require_whole(chain: ChainCheck, first: int, last: int) -> None:
    """LogDamagedError when fewer events came than the range has."""
    if first + chain.checked <= last:
        position = first + chain.checked
        raise LogDamagedError(position, f"no event has position {position}, and none follows")
