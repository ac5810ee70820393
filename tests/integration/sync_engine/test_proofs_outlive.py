"""What was proven is told as long as the log is kept, also of equipment and destinations that were taken out of the
configuration since (SPEC §4)."""

from __future__ import annotations

import hashlib
from typing import Any

import grpc

from labferry.sync.v1 import run_service_pb2, sync_service_pb2
from tests.e2e.terminal import Operator
from tests.integration.sync_engine.running_engine import Engine, Site, running_engine
from tests.integration.sync_engine.test_bad_input import error_info, refused
from tests.integration.sync_engine.test_cleanup_changed_destinations import bring_to_all, name_destinations
from tests.integration.sync_engine.test_receipts import evidence, receipt

NOT_FOUND = grpc.StatusCode.NOT_FOUND


async def manifest(engine: Engine, run: str, **fields: Any) -> bytes:
    wanted = sync_service_pb2.GetManifestRequest(run=run, **fields)
    return b"".join([piece.content async for piece in engine.sync.GetManifest(wanted)])


async def proofs(engine: Engine, run: str, destination: str) -> tuple[Any, ...]:
    told = await receipt(engine, run, destination=destination)
    listed = await manifest(engine, run, destination=destination)
    assert hashlib.sha256(listed).hexdigest() == told.manifest_sha256
    return told.SerializeToString(), listed, [e.path for e in await evidence(engine, run, destination=destination)]


async def refusal(call: Any) -> tuple[grpc.StatusCode, str, str]:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code(), error_info(error).reason, error.details() or ""
    raise AssertionError("answered")


async def verified(engine: Engine, run: str, **fields: Any) -> list[sync_service_pb2.VerifyUpdate]:
    request = sync_service_pb2.VerifyRunRequest(run=run, reason="audit", **fields)
    return [update async for update in engine.sync.VerifyRun(request)]


async def listed(engine: Engine, **fields: Any) -> list[tuple[str, int]]:
    page = await engine.runs.ListRuns(run_service_pb2.ListRunsRequest(**fields))
    return [(run.run, len(run.jobs)) for run in page.runs]


async def test_a_destination_that_is_configured_no_more(site: Site) -> None:
    name_destinations(site, "nas", "retired")
    run = site.make_run()
    async with running_engine(site) as engine:
        await bring_to_all(engine, run)
        before = await proofs(engine, run, "retired")
    name_destinations(site, "nas")
    async with running_engine(site) as engine:
        assert await proofs(engine, run, "retired") == before
        assert (await receipt(engine, run)).destination == "nas"
        assert [e.destination for e in await evidence(engine, run)] == ["nas"] * 2 + ["retired"] * 2
        assert [u.report.destination for u in await verified(engine, run) if u.HasField("report")] == ["nas"]
        code, reason, words = await refusal(verified(engine, run, destination="retired"))
        assert (code, reason) == (NOT_FOUND, "DESTINATION_NOT_FOUND")
        assert "any more" in words
        code, reason, words = await refusal(receipt(engine, run, destination="never"))
        assert (code, reason) == (NOT_FOUND, "DESTINATION_NOT_FOUND")
        assert "any more" not in words
    name_destinations(site, "new")
    async with running_engine(site) as engine:
        assert (await receipt(engine, run)).destination == "nas"
        code, reason, words = await refusal(verified(engine, run))
        assert (code, reason) == (NOT_FOUND, "DESTINATION_NOT_FOUND")
        assert "any more" in words


async def test_equipment_that_is_configured_no_more(site: Site) -> None:
    run = site.make_run()
    async with running_engine(site) as engine:
        await engine.bring(run)
        before = await proofs(engine, run, "default")
    site.lab.settings["equipment"] = []
    site.equip("STEM_02")
    other = site.make_run(equipment="STEM_02")
    async with running_engine(site) as engine:
        assert await proofs(engine, run, "default") == before
        assert await listed(engine) == [(run, 1), (other, 0)]
        assert await listed(engine, equipment_id="CONFOCAL_01") == [(run, 1)]
        assert await listed(engine, equipment_id="STEM_02") == [(other, 0)]
        code, reason, words = await refusal(verified(engine, run))
        assert (code, reason) == (NOT_FOUND, "EQUIPMENT_NOT_CONFIGURED")
        assert "any more" in words
        unknown = run.replace("14-32", "14-33")
        for call in (
            receipt(engine, unknown),
            engine.enqueue(run),
            engine.sync.CleanRun(sync_service_pb2.CleanRunRequest(run=run, reason="room")),
            engine.runs.ListRuns(run_service_pb2.ListRunsRequest(equipment_id="NOWHERE")),
        ):
            assert (await refused(call))[:2] == (NOT_FOUND, "EQUIPMENT_NOT_CONFIGURED")
        operator = Operator(site)
        bag = site.lab.folder / "bag"
        done = await operator("run", "export", run, "--to", str(bag), "--from", str(site.at_nas(run)))
        assert done.status == 0, done.err
        assert (bag / "data" / "a.tif").read_bytes() == b"pixels"
        done = await operator("run", "export", run, "--to", str(bag.with_name("other")))
        assert done.status == 1
        assert "name that with --from" in done.err
