"""A destination under suspicion is a finding of its own until an operator trusts it again."""

from __future__ import annotations

from google.protobuf import empty_pb2

from labferry.events.v1 import equipment_events_pb2
from labferry.sync.v1 import equipment_service_pb2, finding_pb2, problem_service_pb2
from libs.event_log.open_store import open_event_store
from libs.event_log.store import Expected, StreamAppend
from services.sync_engine.event_types import EVENT_TYPES, destination_stream
from tests.integration.sync_engine.running_engine import EQUIPMENT, Engine, Site, running_engine


async def _found(engine: Engine, **scope: object) -> list[finding_pb2.Finding]:
    query = problem_service_pb2.QueryProblemsRequest(**scope)  # type: ignore[arg-type]
    found = [f async for f in engine.problems.QueryProblems(query)]
    return [f for f in found if f.rule == finding_pb2.RULE_TARGET_SUSPECTED]


async def suspect(site: Site, run: str) -> None:
    """Three files of this run. No real destination can be made to read them back wrong twice: the log says that it did;
    no engine must be there."""
    store = await open_event_store("sqlite", "sync_engine", site.lab.folder / "state" / "sync_engine")
    doubted = [
        equipment_events_pb2.DestinationDoubted(
            equipment_id=EQUIPMENT, destination="default", job_id=f"j{n}", attempt=2, paths=[f"{run}/{n}.tif"]
        )
        for n in range(3)
    ]
    events = [EVENT_TYPES.new_event(event, actor="service:sync_engine") for event in doubted]
    stream = destination_stream(EQUIPMENT, "default")
    known = await store.read_stream(stream)
    await store.append([StreamAppend(stream, known[-1].revision if known else Expected.NONE, events)])
    await store.close()


async def test_a_finding_until_it_is_trusted_again(site: Site) -> None:
    site.equip("SCOPE_02")
    run = site.make_run()
    async with running_engine(site):
        pass
    await suspect(site, run)
    async with running_engine(site) as engine:
        (finding,) = await _found(engine, all=empty_pb2.Empty())
        assert (finding.offending_path, finding.tier) == (EQUIPMENT, finding_pb2.TIER_SOFT)
        assert "default is under suspicion: 3 files" in finding.rule_detail
        assert await _found(engine, equipment_id=EQUIPMENT) == [finding]
        assert await _found(engine, equipment_id="SCOPE_02") == []
        assert await _found(engine, run=run) == []
        await engine.equipment.TrustDestination(
            equipment_service_pb2.TrustDestinationRequest(
                equipment_id=EQUIPMENT, destination="default", reason="a cable was replaced"
            )
        )
        assert await _found(engine, all=empty_pb2.Empty()) == []
