"""The gateway's log: its own beginning, and the history of projects."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from google.protobuf.json_format import MessageToDict

from labferry.events.v1 import lims_events_pb2 as facts
from libs.event_log.event import RecordedEvent
from libs.event_log.sqlite_store import SqliteEventStore
from services.lims_gateway.events import EVENT_TYPES
from services.lims_gateway.projects.history import ProjectHistory
from services.lims_gateway.projects.known_projects import KnownProjects, stream_of
from tests.golden.scenario import LOG_COPIES, REFUSED_CALLS, Fact, GoldenService, Json, Scenario

_LIMS = "https://lims.lab.example"
_ITSELF = "service:lims_gateway"


def _project(number: int, **fields: object) -> facts.LimsProject:
    known = {
        "id": number,
        "uid": f"uid-{number}",
        "short_id": f"PROJ-{number:04d}",
        "name": f"Müller Glia Map {number}",
        "status": "Active",
        "created_at": 1_700_000_000.0,
        "updated_at": 1_700_000_000.5,
        "rest_sha256": bytes(range(32)),
    }
    return facts.LimsProject(**{**known, **fields})  # type: ignore[arg-type]


_FACTS = (
    facts.LimsProjectAdded(endpoint=_LIMS, project=_project(42)),
    facts.LimsProjectAdded(endpoint=_LIMS, project=_project(43, created_at=None, updated_at=None)),
    facts.LimsProjectsRead(endpoint=_LIMS, count=2, skipped_rows=1),
    facts.LimsProjectRemoved(endpoint=_LIMS, project=_project(43, created_at=None, updated_at=None)),
    facts.LimsProjectChanged(endpoint=_LIMS, old=_project(42), new=_project(42, name="Renamed", status="Completed")),
    facts.LimsProjectsRead(endpoint=_LIMS, count=1),
)
PROJECT_HISTORY = Scenario("project-history", tuple(Fact(stream_of(f), f, actor=_ITSELF) for f in _FACTS))


def _told(known: KnownProjects) -> Json:
    projects = known.of(_LIMS).values()
    return {
        "projects": [MessageToDict(p, preserving_proto_field_name=True) for p in projects],
        "read_ns": known.read_ns(_LIMS),
    }


async def _state_after(store: SqliteEventStore, event: RecordedEvent) -> Json:
    if event.type.startswith("log."):
        return None
    known = KnownProjects()
    async for page in store.read(upto=event.position):
        for earlier in page:
            known.apply(EVENT_TYPES.decode(earlier), earlier.recorded_ns)
    return _told(known)


async def _read_models(store: SqliteEventStore, folder: Path) -> Mapping[str, Json]:
    history = await ProjectHistory.load(store)
    return {} if history.known.read_ns(_LIMS) is None else {"known": _told(history.known)}


LIMS_GATEWAY = GoldenService(
    "lims_gateway",
    EVENT_TYPES,
    (Scenario("first-release", LOG_COPIES), PROJECT_HISTORY, Scenario("refused-calls", REFUSED_CALLS)),
    _state_after,
    _read_models,
)
