"""What callers put into metadata and texts: it proves nobody, and each line of a service's log stays one JSON value."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest

from labferry.sync.v1 import sync_service_pb2, sync_service_pb2_grpc
from libs.service_kit.identity import Role
from libs.service_kit.settings import LoggingSettings
from libs.service_kit.telemetry import configure_logging
from tests.faults.hardening.whole_lab import NOBODY, WholeLab
from tests.integration.secrets.running_service import refusal
from tests.integration.sync_engine.running_engine import EQUIPMENT, PROJECT
from tests.integration.sync_engine.test_bad_input import refused

LIST = sync_service_pb2.ListJobsRequest()
INJECTION = 'x"}\n{"event": "call", "actor": "operator-1"}\r\n\u2028\x1b[2J'


async def stub(lab: WholeLab, who: str) -> Any:
    return sync_service_pb2_grpc.SyncServiceStub(await lab.channel("sync_engine", who))


@pytest.mark.asyncio(loop_scope="session")
async def test_several_authorizations_prove_nobody(lab: WholeLab) -> None:
    stranger = await stub(lab, NOBODY)
    right = ("authorization", f"Bearer {lab.token(Role.ADMIN.value)}")
    wrong = ("authorization", "Bearer nobody")
    await stranger.ListJobs(LIST, metadata=(right,))
    for several in ((right, wrong), (wrong, right), (wrong,) * 20):
        code, reason = await refusal(stranger.ListJobs(LIST, metadata=several))
        assert (code, reason) in (
            (grpc.StatusCode.UNAUTHENTICATED, "IDENTITY_REQUIRED"),
            (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_REFUSALS"),
        )


@pytest.mark.asyncio(loop_scope="session")
async def test_metadata_beyond_what_is_taken(lab: WholeLab) -> None:
    viewer = await stub(lab, Role.VIEWER.value)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await viewer.ListJobs(LIST, metadata=(("x-request-id", "x" * 100_000),))
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    await viewer.ListJobs(LIST, metadata=(("x-request-id", "x" * 5_000), ("x-odd-bin", b"\x00\xff\n")))
    await lab.assert_serving()


@pytest.mark.asyncio(loop_scope="session")
async def test_every_log_line_stays_one_json_value(lab: WholeLab) -> None:
    operator = await stub(lab, Role.OPERATOR.value)
    run = f"{EQUIPMENT}/{PROJECT}/Runs/Run_{INJECTION}"
    await refused(operator.EnqueueRun(sync_service_pb2.EnqueueRunRequest(run=run)))
    await refused(operator.GetJob(sync_service_pb2.GetJobRequest(job_id=INJECTION)))
    adopt = sync_service_pb2.AdoptRunRequest(source_folder="/" + INJECTION, operator=INJECTION, project=INJECTION)
    await refused(operator.AdoptRun(adopt))
    # A call after them: what they said is written by then.
    await operator.ListJobs(LIST)
    lines = lab.site.lab.log_text("sync_engine").split("\n")[:-1]
    told = [json.loads(line) for line in lines]
    assert all(isinstance(line, dict) for line in told)
    assert any(r"\n" in line and "EnqueueRun" in line for line in lines)
    assert not [line for line in told if line.get("actor") == "operator-1"]


def test_a_file_name_that_is_no_utf8_is_a_log_line_too(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logging(LoggingSettings(), "test").warning("odd", path="a\udcff\n")
    (line,) = capfd.readouterr().err.splitlines()
    assert json.loads(line)["path"] == "a\udcff\n"
