"""Golden logs on disk: written once from a scenario, then only ever replayed and compared."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.json_format import MessageToDict

from libs.event_log.event import EventTypes, RecordedEvent
from libs.event_log.hash_chain import verify_chain
from libs.event_log.sqlite_store import SqliteEventStore
from libs.event_log.store import Expected, StreamAppend
from libs.service_kit.version import LABFERRY_VERSION
from tests.golden.scenario import GoldenService, Json, Scenario
from tests.golden.scenarios.lims_gateway import LIMS_GATEWAY
from tests.golden.scenarios.secrets import SECRETS
from tests.golden.scenarios.sync_engine import SYNC_ENGINE

LOGS = Path(__file__).with_name("logs")
SERVICES = (SYNC_ENGINE, SECRETS, LIMS_GATEWAY)
_BEGAN_NS = 1_776_436_320_000_000_000
_BETWEEN_EVENTS_NS = 1_500_000_000


class GoldenLogError(Exception):
    """A golden log isn't what it was, or isn't read any more as it was."""


@dataclass(frozen=True)
class GoldenLog:
    """A committed log and what was made of it when it was written."""

    service: GoldenService
    folder: Path

    @property
    def log(self) -> Path:
        return self.folder / "events.sqlite3"

    @property
    def expected(self) -> Json:
        return json.loads((self.folder / "expected.json").read_text(encoding="utf-8"))

    async def replay(self, scratch: Path) -> Json:
        """Everything that today's code makes of the log, on a copy of it under `scratch`. GoldenLogError for damage."""
        shutil.copy(self.log, scratch / "events.sqlite3")
        store = await SqliteEventStore.open(
            scratch / "events.sqlite3", service=self.service.name, version=LABFERRY_VERSION
        )
        try:
            events = [event async for page in store.read() for event in page]
            found = verify_chain(store.store_id, events)
            if found is not None or store.damage is not None:
                raise GoldenLogError(f"{self.log} was changed: {found or store.damage}")
            return {
                "head": {"position": store.head, "hash": events[-1].hash.hex()},
                "events": [await self._told(store, event) for event in events],
                "read_models": await self.service.read_models(store, scratch),
            }
        finally:
            await store.close()

    async def _told(self, store: SqliteEventStore, event: RecordedEvent) -> Json:
        return {
            "position": event.position,
            "stream": event.stream,
            "type": event.type,
            "payload": stored_payload(self.service.event_types, event),
            "state": await self.service.state_after(store, event),
        }


def stored_payload(types: EventTypes, event: RecordedEvent) -> Json:
    """The payload in the version that it was stored in."""
    known = types.get(event.type)
    if known is None:
        raise GoldenLogError(f"the event type {event.type} is not registered any more")
    return MessageToDict(known.payload.FromString(event.payload), preserving_proto_field_name=True)


def golden_logs(service: GoldenService, under: Path = LOGS) -> Sequence[GoldenLog]:
    return [GoldenLog(service, folder) for folder in sorted((under / service.name).glob("*/"))]


async def write_missing(scratch: Path, under: Path = LOGS) -> Sequence[Path]:
    """Writes the log of each scenario that has none yet, and never touches one that is there."""
    written = []
    for service in SERVICES:
        for scenario in service.scenarios:
            folder = under / service.name / scenario.name
            if folder.exists():
                continue
            folder.mkdir(parents=True)
            written.append(folder)
            await _write(GoldenLog(service, folder), scenario)
            at_work = scratch / f"{service.name}-{scenario.name}"
            at_work.mkdir()
            told = await GoldenLog(service, folder).replay(at_work)
            text = json.dumps(told, ensure_ascii=False, indent=1) + "\n"
            (folder / "expected.json").write_text(text, encoding="utf-8")
    return written


async def _write(golden: GoldenLog, scenario: Scenario) -> None:
    times = itertools.count(_BEGAN_NS, _BETWEEN_EVENTS_NS)
    store = await SqliteEventStore.open(
        golden.log, service=golden.service.name, version=LABFERRY_VERSION, clock=lambda: next(times)
    )
    try:
        for fact in scenario.facts:
            event = golden.service.event_types.new_event(
                fact.payload, actor=fact.actor, reason=fact.reason, correlation_id=fact.correlation_id
            )
            await store.append((StreamAppend(fact.stream, Expected.ANY, (event,)),))
    finally:
        await store.close()
    golden.log.with_name("events.sqlite3.lock").unlink()


def differences(expected: Json, actual: Json, at: str = "") -> list[str]:
    """Where `actual` doesn't say what `expected` does. A state may have grown fields; a payload may not."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        found = [f"{at}.{key} is gone" for key in expected.keys() - actual.keys()]
        if at.endswith(".payload"):
            found += [f"{at}.{key} is new" for key in actual.keys() - expected.keys()]
        for key in expected.keys() & actual.keys():
            found += differences(expected[key], actual[key], f"{at}.{key}")
        return found
    if isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        return [
            line
            for i, pair in enumerate(zip(expected, actual, strict=True))
            for line in differences(*pair, f"{at}[{i}]")
        ]
    return [] if expected == actual else [f"{at}: was {expected!r}, is {actual!r}"]
