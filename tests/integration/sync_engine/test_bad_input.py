"""Whatever a caller gets wrong: one clear error with details (SPEC §9), nothing lost, nothing half done."""

from __future__ import annotations

import os
import uuid
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2

from labferry.sync.v1 import finding_pb2, problem_service_pb2, run_pb2, run_service_pb2, sync_service_pb2
from tests.integration.secrets.running_service import detail, error_info
from tests.integration.sync_engine.running_engine import EQUIPMENT, PROJECT, Engine, creation_document

UNKNOWN_RUN = f"{EQUIPMENT}/{PROJECT}/Runs/Run_2030-01-01T00-00"
NOT_FOUND, INVALID = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT
PRECONDITION, EXISTS = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.ALREADY_EXISTS


async def refused(call: Any) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    try:
        answer = await call if not hasattr(call, "__aiter__") else [m async for m in call]
    except grpc.aio.AioRpcError as error:
        info = error_info(error)
        assert error.details()
        assert "Traceback" not in error.details()
        return error.code(), info.reason, dict(info.metadata)
    raise AssertionError(f"answered: {answer}")


async def wrong_fields(call: Any, reason: str = "INVALID_FIELD") -> set[str]:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        assert error.code() == INVALID
        assert error_info(error).reason == reason
        return {v.field for v in detail(error, error_details_pb2.BadRequest).field_violations}
    raise AssertionError("the request was answered")


@pytest.mark.parametrize(
    ("run", "code", "reason"),
    [
        (UNKNOWN_RUN, NOT_FOUND, "RUN_NOT_FOUND"),
        ("NO_SUCH_EQUIPMENT/P/Runs/Run_2030-01-01T00-00", NOT_FOUND, "EQUIPMENT_NOT_CONFIGURED"),
        (f"{EQUIPMENT}/../../etc/Run_1", INVALID, "PATH_OUTSIDE_ROOTS"),
        (f"/{EQUIPMENT}/P/Runs/Run_1", INVALID, "PATH_OUTSIDE_ROOTS"),
        (f"{EQUIPMENT}/P/Runs/../../../Run_1", INVALID, "PATH_OUTSIDE_ROOTS"),
        (f"{EQUIPMENT}/P/Runs/Run_\0", INVALID, "PATH_OUTSIDE_ROOTS"),
        (f"{EQUIPMENT}/P/Runs/not a run", INVALID, "PATH_OUTSIDE_ROOTS"),
        ("lower/P/Runs/Run_1", INVALID, "PATH_OUTSIDE_ROOTS"),
    ],
)
async def test_a_path_that_names_no_run(engine: Engine, run: str, code: grpc.StatusCode, reason: str) -> None:
    head = (await engine.events())[-1].position
    queue = engine.sync.EnqueueRun(sync_service_pb2.EnqueueRunRequest(run=run))
    show = engine.runs.GetRun(run_service_pb2.GetRunRequest(run=run))
    problems = engine.problems.QueryProblems(problem_service_pb2.QueryProblemsRequest(run=run))
    for call in (queue, show, problems):
        assert (await refused(call))[:2] == (code, reason)
    override = engine.override(run, finding_pb2.RULE_LEFTOVER_JINJA_MARKER)
    assert (await refused(override))[:2] == (code, reason)
    if reason == "PATH_OUTSIDE_ROOTS":
        assert await wrong_fields(engine.enqueue(run), reason) == {"run"}
    assert (await engine.events())[-1].position == head


async def test_a_symlink_out_of_the_root_is_no_run(engine: Engine) -> None:
    outside = engine.site.lab.folder / "outside" / "Run_2026-01-01T00-00"
    outside.mkdir(parents=True)
    runs = engine.site.local_root / EQUIPMENT / PROJECT / "Runs"
    runs.mkdir(parents=True)
    (runs / outside.name).symlink_to(outside)
    answer = await refused(engine.enqueue(f"{EQUIPMENT}/{PROJECT}/Runs/{outside.name}"))
    assert answer[:2] == (INVALID, "PATH_OUTSIDE_ROOTS")


async def test_a_symlink_in_the_run_that_leaves_it_is_never_followed(engine: Engine) -> None:
    secret = engine.site.lab.folder / "secret.txt"
    secret.write_text("not for the NAS")
    run = engine.site.make_run()
    (engine.site.local(run) / "link").symlink_to(secret)
    answer = await engine.enqueue(run)
    job = await engine.until_failed(answer.job.job_id)
    assert "link" in job.failure.paths
    assert not [p for p in engine.site.nas().rglob("*") if p.is_file() and p.read_bytes() == b"not for the NAS"]


async def test_a_run_without_creation_json(engine: Engine) -> None:
    run = engine.site.make_run(creation={})
    assert (await refused(engine.enqueue(run)))[:2] == (PRECONDITION, "CREATION_FILE_MISSING")


async def test_another_major_of_the_schema(engine: Engine) -> None:
    run = engine.site.make_run(creation=creation_document(schema_version="2.0"))
    before = engine.site.creation_path(run).read_bytes()
    code, reason, metadata = await refused(engine.enqueue(run))
    assert (code, reason) == (PRECONDITION, "SCHEMA_MAJOR_MISMATCH")
    assert metadata["code"] == "schema_major_mismatch"
    assert (metadata["field"], metadata["expected_major"]) == ("schema_version", "1")
    assert "2.0" in metadata["found"]
    assert engine.site.creation_path(run).read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema_version":"1.8","sync_status":"nonsense"}', b"\xff"])
async def test_a_creation_json_that_is_none(engine: Engine, content: bytes) -> None:
    run = engine.site.make_run()
    engine.site.creation_path(run).write_bytes(content)
    assert (await refused(engine.enqueue(run)))[:2] == (PRECONDITION, "CREATION_FILE_UNREADABLE")
    assert engine.site.creation_path(run).read_bytes() == content


async def test_every_wrong_field_of_an_override_is_named(engine: Engine) -> None:
    past = Timestamp()
    past.FromJsonString("2020-01-01T00:00:00Z")
    request = run_service_pb2.RecordOverrideRequest(expires_at=past, request_id="x" * 200)
    named = await wrong_fields(engine.runs.RecordOverride(request))
    assert named == {"run", "problem_class", "operator", "reason", "expires_at", "request_id"}
    run = engine.site.make_run()
    assert await wrong_fields(engine.override(run, finding_pb2.RULE_LEFTOVER_JINJA_MARKER, reason="  ")) == {"reason"}
    assert await wrong_fields(engine.override(run, finding_pb2.RULE_VERIFIED_FILE_CHANGED)) == {"problem_class"}
    assert "validation_overrides" not in engine.site.creation(run)


async def test_an_override_that_can_not_be_revoked(engine: Engine) -> None:
    run = engine.site.make_run()
    recorded = await engine.override(run, finding_pb2.RULE_LEFTOVER_JINJA_MARKER)

    def revoke(override_id: str) -> Any:
        return engine.runs.RevokeOverride(
            run_service_pb2.RevokeOverrideRequest(
                run=run, override_id=override_id, operator="asmith", reason="recorded by mistake"
            )
        )

    assert (await refused(revoke(str(uuid.uuid4()))))[:2] == (NOT_FOUND, "OVERRIDE_NOT_FOUND")
    assert await wrong_fields(revoke("not an id")) == {"override_id"}
    tombstone = await revoke(recorded.id)
    assert (tombstone.revoked, tombstone.revokes) == (True, recorded.id)
    for override_id in (recorded.id, tombstone.id):
        assert (await refused(revoke(override_id)))[:2] == (PRECONDITION, "OVERRIDE_NOT_REVOCABLE")
    assert len(engine.site.creation(run)["validation_overrides"]) == 2


async def test_jobs_that_are_not_there_or_can_not_be_retried(engine: Engine) -> None:
    unknown = str(uuid.uuid4())
    get = engine.sync.GetJob(sync_service_pb2.GetJobRequest(job_id=unknown))
    retry = engine.sync.RetryJob(sync_service_pb2.RetryJobRequest(job_id=unknown, reason="x"))
    for call in (get, retry):
        assert (await refused(call))[:2] == (NOT_FOUND, "JOB_NOT_FOUND")
    assert await wrong_fields(engine.sync.GetJob(sync_service_pb2.GetJobRequest(job_id="x"))) == {"job_id"}
    job = await engine.bring(engine.site.make_run())
    retry = engine.sync.RetryJob(sync_service_pb2.RetryJobRequest(job_id=job.job_id, reason="again"))
    code, reason, metadata = await refused(retry)
    assert (code, reason, metadata["state"]) == (PRECONDITION, "JOB_STATE", "verified")


async def test_lists_refuse_what_they_did_not_give_out(engine: Engine) -> None:
    token = sync_service_pb2.ListJobsRequest(page_token="bm9uc2Vuc2U=", page_size=5000)
    assert await wrong_fields(engine.sync.ListJobs(token)) >= {"page_size"}
    token.page_size = 10
    assert await wrong_fields(engine.sync.ListJobs(token)) == {"page_token"}


async def test_as_of_a_position_that_is_not_there_yet(engine: Engine) -> None:
    run = engine.site.make_run()
    request = run_service_pb2.GetRunRequest(run=run, as_of=run_pb2.AsOf(position=10_000))
    assert (await refused(engine.runs.GetRun(request)))[:2] == (grpc.StatusCode.OUT_OF_RANGE, "POSITION_BEYOND_HEAD")


async def test_verifying_what_was_never_brought(engine: Engine) -> None:
    run = engine.site.make_run()
    nothing = engine.sync.VerifyRun(sync_service_pb2.VerifyRunRequest(run=run))
    assert (await refused(nothing))[:2] == (PRECONDITION, "NOTHING_VERIFIED")
    elsewhere = engine.sync.VerifyRun(sync_service_pb2.VerifyRunRequest(run=run, destination="moon"))
    assert (await refused(elsewhere))[:2] == (NOT_FOUND, "DESTINATION_NOT_FOUND")


async def test_a_scope_that_is_not_there(engine: Engine) -> None:
    def query(**scope: Any) -> Any:
        return engine.problems.QueryProblems(problem_service_pb2.QueryProblemsRequest(**scope))

    assert (await refused(query(equipment_id="NOPE")))[:2] == (NOT_FOUND, "EQUIPMENT_NOT_CONFIGURED")
    assert (await refused(query(project_path=f"{EQUIPMENT}/nope")))[0] == NOT_FOUND
    assert (await refused(query(project_path="../x")))[0] in (INVALID, NOT_FOUND)


async def test_the_same_request_id_with_another_body_is_a_conflict(engine: Engine) -> None:
    run = engine.site.make_run()
    first = await engine.override(run, finding_pb2.RULE_LEFTOVER_JINJA_MARKER, request_id="r-1")
    again = await engine.override(run, finding_pb2.RULE_LEFTOVER_JINJA_MARKER, request_id="r-1")
    assert again.id == first.id
    assert len(await engine.overrides(run)) == 1
    other = engine.override(run, finding_pb2.RULE_LEFTOVER_JINJA_MARKER, request_id="r-1", reason="another")
    assert (await refused(other))[:2] == (EXISTS, "REQUEST_ID_REUSED")


async def test_a_repeated_enqueue_gets_its_first_answer(engine: Engine) -> None:
    run = engine.site.make_run()
    first = await engine.enqueue(run, request_id="evening-7")
    await engine.until_sealed(first.job.job_id)
    again = await engine.enqueue(run, request_id="evening-7")
    assert again.outcome == first.outcome
    assert again.job.job_id == first.job.job_id
    other = engine.site.make_run(leaf="Run_2026-04-17T15-00")
    assert (await refused(engine.enqueue(other, request_id="evening-7")))[:2] == (EXISTS, "REQUEST_ID_REUSED")


async def test_hostile_texts_do_no_harm(engine: Engine) -> None:
    for run in ("x" * 5000, "é/" * 300, "CONFOCAL_01/" + "a/" * 2000):
        code, _, _ = await refused(engine.enqueue(run))
        assert code == INVALID
    run = engine.site.make_run()
    hostile = "'; DROP TABLE jobs; -- \u202e \x1b[31m"
    recorded = await engine.override(run, finding_pb2.RULE_LEFTOVER_JINJA_MARKER, reason=hostile)
    assert recorded.reason == hostile
    assert engine.site.creation(run)["validation_overrides"][0]["reason"] == hostile
    assert os.path.exists(engine.site.local(run))
