"""Receipts beside the data, the evidence of each file, and the manifest, through the API (SPEC §4, ARCHITECTURE §4)."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any

import grpc

from labferry.sync.v1 import equipment_service_pb2, job_pb2, sync_service_pb2
from libs.run_tree.receipt import read_receipt
from libs.run_tree.receipt_check import check_run
from tests.integration.sync_engine.running_engine import EQUIPMENT, PATIENCE, Engine, Site, running_engine
from tests.integration.sync_engine.test_bad_input import PRECONDITION, refused

NOT_FOUND = grpc.StatusCode.NOT_FOUND


async def receipt(engine: Engine, run: str, **fields: Any) -> sync_service_pb2.Receipt:
    answer: sync_service_pb2.Receipt = await engine.sync.GetReceipt(
        sync_service_pb2.GetReceiptRequest(run=run, **fields)
    )
    return answer


async def evidence(engine: Engine, run: str, **fields: Any) -> list[sync_service_pb2.Evidence]:
    return [e async for e in engine.sync.ListEvidence(sync_service_pb2.ListEvidenceRequest(run=run, **fields))]


async def test_the_receipt_lies_beside_the_data_and_vouches_for_it(engine: Engine) -> None:
    run = engine.site.make_run()
    (engine.site.local(run) / "link").symlink_to("a.tif")
    nothing_yet = engine.sync.GetReceipt(sync_service_pb2.GetReceiptRequest(run=run))
    assert (await refused(nothing_yet))[:2] == (NOT_FOUND, "RECEIPT_NOT_FOUND")
    job = await engine.bring(run)
    answer = await receipt(engine, run)
    for folder in (engine.site.local(run), engine.site.at_nas(run)):
        assert (folder / ".exlab-wizard/receipt.default.json").read_bytes() == answer.content
        signed = read_receipt(answer.content)
        assert check_run(signed.receipt, folder).wrong == []
    said = signed.receipt
    assert (said.run, said.destination, said.job_id) == (run, "default", job.job_id)
    assert (said.manifest_sha256, said.file_count, said.byte_count) == (job.manifest_sha256, 2, 10)
    (copy,) = said.copies
    assert (copy.grade, copy.expected, copy.hashed, copy.matched) == ("E4", 2, 2, 2)
    events = {e.position: e for e in await engine.events()}
    assert events[copy.log_position].type == "sync.job.verified.v1"
    assert events[copy.log_position].hash.hex() == copy.log_hash
    public = [p.read_bytes() for p in (engine.site.lab.folder / "state/sync_engine/keys").glob("*.pub")]
    assert len(public) == 1
    (engine.site.local(run) / "late.tif").write_bytes(b"late")
    await engine.bring(run)
    amended = read_receipt((await receipt(engine, run)).content).receipt
    assert (amended.amendment, amended.file_count, amended.copies[0].expected) == (1, 3, 3)
    assert check_run(amended, engine.site.at_nas(run)).wrong == []


async def test_an_amendment_under_way_hides_no_proof(engine: Engine) -> None:
    site = engine.site
    run = site.make_run()
    first = await engine.bring(run)
    (site.local(run) / "late.tif").write_bytes(b"late")
    pause = equipment_service_pb2.PauseEquipmentRequest(equipment_id=EQUIPMENT, reason="laser service")
    await engine.equipment.PauseEquipment(pause)
    amendment = (await engine.enqueue(run)).job
    assert (amendment.amendment, amendment.state) == (1, job_pb2.JOB_STATE_QUEUED)
    await _proofs_are_of(engine, first)
    await engine.steer("CancelJob", amendment.job_id)
    await _proofs_are_of(engine, first)


async def _proofs_are_of(engine: Engine, job: job_pb2.Job) -> None:
    run = job.run
    assert read_receipt((await receipt(engine, run)).content).receipt.job_id == job.job_id
    assert [e.path for e in await evidence(engine, run)] == ["a.tif", "sub/b.csv"]
    pieces = [p.content async for p in engine.sync.GetManifest(sync_service_pb2.GetManifestRequest(run=run))]
    assert hashlib.sha256(b"".join(pieces)).hexdigest() == job.manifest_sha256
    updates = [u async for u in engine.sync.VerifyRun(sync_service_pb2.VerifyRunRequest(run=run))]
    assert [(u.report.job_id, u.report.passed) for u in updates if u.HasField("report")] == [(job.job_id, True)]


async def test_each_destination_has_its_own_and_names_the_other(site: Site) -> None:
    site.lab.settings["equipment"].clear()
    places = [
        {
            "name": name,
            "required": name == "nas",
            "transport": {"type": "mounted", "path": str(site.nas(destination=name))},
        }
        for name in ("nas", "archive")
    ]
    site.nas(destination="archive").mkdir(parents=True)
    site.equip(destinations=places)
    async with running_engine(site) as engine:
        run = site.make_run()
        answer = await engine.enqueue(run)
        for job in answer.jobs:
            await engine.until_sealed(job.job_id)
        found = {name: await receipt(engine, run, destination=name) for name in ("nas", "archive")}
        assert {name: json.loads(r.content)["destination"] for name, r in found.items()} == {
            "nas": "nas",
            "archive": "archive",
        }
        last = max(found.values(), key=lambda r: r.issued_time.ToNanoseconds())
        assert {c["destination"] for c in json.loads(last.content)["copies"]} == {"nas", "archive"}
        assert len(await evidence(engine, run)) == 4
        assert {e.destination for e in await evidence(engine, run, destination="archive")} == {"archive"}


async def test_a_receipt_tells_how_the_copy_was_read_whatever_is_configured_now(site: Site) -> None:
    config = site.lab.folder / "rclone.conf"
    config.write_text("[here]\ntype = local\n")

    def place(name: str, kind: str) -> dict[str, Any]:
        path = str(site.nas(destination=name))
        by_rclone = {"rclone_remote": "here", "rclone_remote_path": path, "rclone_config": str(config)}
        return {"name": name, "transport": {"type": kind, **(by_rclone if kind == "rclone" else {"path": path})}}

    def configure(**kinds: str) -> None:
        site.lab.settings["equipment"].clear()
        site.equip(destinations=[place(name, kind) for name, kind in kinds.items()])

    run = site.make_run()
    for name in ("nas", "second"):
        site.nas(destination=name).mkdir(parents=True, exist_ok=True)
    configure(nas="rclone", second="mounted", late="mounted")
    async with running_engine(site) as engine:
        jobs = {job.destination: job.job_id for job in (await engine.enqueue(run)).jobs}
        for name in ("nas", "second"):
            await engine.until_sealed(jobs[name])
        before = read_receipt((await receipt(engine, run, destination="nas")).content).receipt
    site.nas(destination="late").mkdir(parents=True)
    configure(nas="mounted", second="rclone", late="mounted")
    async with running_engine(site) as engine:
        for name in ("nas", "second"):
            events = await engine.event_types(f"job-{jobs[name]}")
            while events.count("sync.job.sealed.v1") < 2:
                events = await engine.event_types(f"job-{jobs[name]}")
            after = read_receipt((await receipt(engine, run, destination=name)).content).receipt
            assert {copy.destination: (copy.transport, copy.method) for copy in after.copies} == {
                "nas": ("rclone", "far_sha256"),
                "second": ("mounted", "uncached_read"),
                "late": ("mounted", "uncached_read"),
            }
            assert after.tools == before.tools
            assert after.tools.keys() == {"rclone", "labferry"}


async def test_no_new_receipt_vouches_for_a_copy_whose_last_reading_failed(site: Site) -> None:
    site.lab.settings["equipment"].clear()
    for name in ("nas", "rotten", "late"):
        site.nas(destination=name).mkdir(parents=True, exist_ok=True)
    places = {name: {"type": "mounted", "path": str(site.nas(destination=name))} for name in ("nas", "rotten", "late")}
    site.equip(destinations=[{"name": name, "transport": transport} for name, transport in places.items()])
    async with running_engine(site) as engine:
        run = site.make_run()
        pause = equipment_service_pb2.PauseEquipmentRequest(equipment_id=EQUIPMENT, reason="laser service")
        await engine.equipment.PauseEquipment(pause)
        nas, rotten, late = ((job.job_id) for job in (await engine.enqueue(run)).jobs)
        await engine.steer("PauseJob", late)
        resume = equipment_service_pb2.ResumeEquipmentRequest(equipment_id=EQUIPMENT, reason="done")
        await engine.equipment.ResumeEquipment(resume)
        for job_id in (nas, rotten):
            await engine.until_sealed(job_id)
        before = await receipt(engine, run, destination="rotten")
        spoilt = site.at_nas(run, "rotten") / "a.tif"
        spoilt.write_bytes(b"pixelz")
        assert await _read_back(engine, run, "rotten") is False
        await engine.steer("ResumeJob", late)
        await engine.until_sealed(late)
        assert await _vouched_for(engine, run, "late") == {"nas", "late"}
        await site.until_sync_status(run, "synced")
        assert await receipt(engine, run, destination="rotten") == before
        spoilt.write_bytes(b"pixels")
        assert await _read_back(engine, run, "rotten") is True
        async with asyncio.timeout(PATIENCE):
            while await _vouched_for(engine, run, "rotten") != {"nas", "rotten", "late"}:
                await asyncio.sleep(0.05)
        last = await receipt(engine, run, destination="rotten")
        assert (site.at_nas(run, "rotten") / ".exlab-wizard/receipt.rotten.json").read_bytes() == last.content


async def _read_back(engine: Engine, run: str, destination: str) -> bool:
    request = sync_service_pb2.VerifyRunRequest(run=run, destination=destination)
    (report,) = [u.report async for u in engine.sync.VerifyRun(request) if u.HasField("report")]
    return bool(report.passed)


async def _vouched_for(engine: Engine, run: str, destination: str) -> set[str]:
    """The destinations whose copies a receipt names."""
    answer = await receipt(engine, run, destination=destination)
    return {copy.destination for copy in read_receipt(answer.content).receipt.copies}


async def test_evidence_and_manifest_are_told_file_by_file(engine: Engine) -> None:
    run = engine.site.make_run({"a.tif": b"pixels", b"\xff.bin": b"raw", "empty": b""})
    nothing = engine.sync.ListEvidence(sync_service_pb2.ListEvidenceRequest(run=run))
    try:
        await anext(aiter(nothing))
    except grpc.aio.AioRpcError as error:
        assert error.code() is PRECONDITION
    else:
        raise AssertionError("evidence of an unverified run")
    job = await engine.bring(run)
    found = {e.path_bytes or e.path.encode(): e for e in await evidence(engine, run)}
    assert set(found) == {b"a.tif", b"\xff.bin", b"empty"}
    one = found[b"a.tif"]
    assert (one.size, one.sha256) == (6, hashlib.sha256(b"pixels").hexdigest())
    assert (one.grade, one.method, one.destination) == ("E4", "uncached_read", "default")
    assert one.host
    assert job.enqueue_time.ToDatetime() < one.time.ToDatetime() < job.verified_time.ToDatetime()
    (engine.site.local(run) / ".exlab-wizard/checksums.sha256").write_text("overwritten by another program")
    pieces = [p.content async for p in engine.sync.GetManifest(sync_service_pb2.GetManifestRequest(run=run))]
    assert hashlib.sha256(b"".join(pieces)).hexdigest() == job.manifest_sha256
