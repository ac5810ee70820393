"""The gateway's log: it holds its own beginning, and nothing else so far."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from libs.event_log.event import RecordedEvent
from libs.event_log.sqlite_store import SqliteEventStore
from services.lims_gateway.events import EVENT_TYPES
from tests.golden.scenario import LOG_COPIES, GoldenService, Json, Scenario


async def _state_after(store: SqliteEventStore, event: RecordedEvent) -> Json:
    return None


async def _read_models(store: SqliteEventStore, folder: Path) -> Mapping[str, Json]:
    return {}


LIMS_GATEWAY = GoldenService(
    "lims_gateway", EVENT_TYPES, (Scenario("first-release", LOG_COPIES),), _state_after, _read_models
)
