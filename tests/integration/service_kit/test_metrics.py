"""Figures for Prometheus: off by default, on loopback, read as Prometheus reads them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from labferry.events.v1 import event_log_service_pb2 as pb
from libs.event_log.event import NewEvent
from libs.event_log.log_metrics import LogMetrics
from libs.event_log.memory_store import MemoryEventStore
from libs.event_log.projection import ProjectionRunner
from libs.service_kit.config import ConfigurationError, load_configuration
from libs.service_kit.metrics import metrics_registry, serving_metrics
from tests.integration.event_log.counting import Notes, SumPerStream
from tests.integration.event_log.events import EVENT_TYPES, counted, noted, to
from tests.integration.secrets.running_service import Lab, new_lab, running

Samples = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]


async def scraped(address: str) -> Samples:
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://{address}/metrics")
    assert answer.status_code == 200
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    async with new_lab() as lab:
        lab.write_passphrase()
        yield lab


def address_of_metrics(lab: Lab, service: str) -> str:
    lines = [json.loads(line) for line in lab.log_text(service).splitlines()]
    (address,) = [line["address"] for line in lines if line["event"] == "serving_metrics"]
    return str(address)


async def test_a_service_tells_of_its_calls_and_its_log(lab: Lab) -> None:
    lab.settings["metrics"] = {"listen": {"secrets": "127.0.0.1:0"}}
    async with running(lab, "secrets") as service:
        log = await service.event_log()
        for _ in range(3):
            info = await log.GetServerInfo(pb.GetServerInfoRequest())
        beyond = pb.VerifyLogRequest(from_position=info.head_position + 1, to_position=info.head_position + 1)
        await log.ReadEvents(pb.ReadEventsRequest()).read()
        with pytest.raises(Exception, match="beyond"):
            await log.VerifyLog(beyond)
        samples = await scraped(address_of_metrics(lab, "secrets"))
        path = "/labferry.events.v1.EventLogService/"
        count = "labferry_rpc_duration_seconds_count"
        assert samples[count, (("method", path + "GetServerInfo"), ("status", "OK"))] == 3
        assert samples[count, (("method", path + "VerifyLog"), ("status", "OUT_OF_RANGE"))] == 1
        assert samples["labferry_log_head_position", ()] == info.head_position
        assert samples["labferry_log_damaged", ()] == 0


async def test_nobody_listens_unless_asked_to(lab: Lab) -> None:
    async with running(lab, "secrets"):
        assert "serving_metrics" not in lab.log_text("secrets")


async def test_an_address_that_is_taken_stops_the_start(lab: Lab) -> None:
    lab.settings["metrics"] = {"listen": {"secrets": "127.0.0.1:0"}}
    async with running(lab, "secrets"):
        taken = address_of_metrics(lab, "secrets")
        lab.settings["metrics"] = {"listen": {"lims_gateway": taken}}
        with pytest.raises(Exception, match="exit status 75"):
            async with running(lab, "lims_gateway"):
                pass


@pytest.mark.parametrize(
    ("listen", "more", "said"),
    [
        ("0.0.0.0:9403", "", "beyond_loopback: true allows that"),
        ("lab-pc:9403", "", "beyond_loopback: true allows that"),
        ("127.0.0.1", "", 'must be "host:port"'),
        ("127.0.0.1:65536", "", 'must be "host:port"'),
        ("unix:/tmp/metrics", "", 'must be "host:port"'),
        ("0.0.0.0:9403", ", beyond_loopback: true", None),
        ("'[::1]:9403'", "", None),
    ],
)
def test_configuration(tmp_path: Path, listen: str, more: str, said: str | None) -> None:
    path = tmp_path / "labferry.yaml"
    path.write_text(f"state_dir: /tmp\nmetrics: {{listen: {{secrets: {listen}}}{more}}}\n", encoding="utf-8")
    if said is None:
        assert load_configuration(path, {}).settings.metrics.listen.secrets == listen.strip("'")
        return
    with pytest.raises(ConfigurationError, match=said):
        load_configuration(path, {})


async def test_lag_and_stop_of_read_models(tmp_path: Path) -> None:
    store = MemoryEventStore(service="test", version="0.0.0")
    runner = ProjectionRunner(
        store, EVENT_TYPES, tmp_path / "read_models.sqlite3", (SumPerStream(), Notes(refused="bad"))
    )
    await runner.start()
    lag = [("labferry_projection_lag_events", (("projection", name),)) for name in ("sum_per_stream", "notes")]
    stop = [("labferry_projection_stopped", (("projection", name),)) for name in ("sum_per_stream", "notes")]
    try:
        async with serving_metrics("127.0.0.1:0", metrics_registry([LogMetrics(store, runner)])) as address:
            await store.append([to("a", counted(1))])
            await runner.reached(store.head)
            samples = await scraped(address)
            assert [samples[name] for name in lag + stop] == [0, 0, 0, 0]
            await store.append([to("a", noted("bad"), counted(2), NewEvent("test.noted.v1", b"", "tester"))])
            async with asyncio.timeout(10):
                while runner.failure is None:
                    await asyncio.sleep(0.01)
            samples = await scraped(address)
            assert [samples[name] for name in lag + stop] == [3, 3, 1, 1]
            assert samples["labferry_log_appended_events_total", ()] == 4
    finally:
        await runner.close()
        await store.close()
