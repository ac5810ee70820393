"""Many clients, silent ones, ones that talk nonsense: the others are answered all the same."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack

import pytest

from labferry.events.v1 import event_log_service_pb2, event_log_service_pb2_grpc
from labferry.sync.v1 import sync_service_pb2, sync_service_pb2_grpc
from libs.service_kit.identity import Role
from tests.faults.hardening.whole_lab import WholeLab
from tests.integration.sync_engine.running_engine import EQUIPMENT

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

STREAMS, CHANNELS = 1000, 5
CONNECTIONS = 2000
GROWTH = 128 * 2**20
GARBAGE = (
    b"",
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01\x02\x00" * 20,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 64,
)


async def answers(lab: WholeLab) -> None:
    """A caller with an identity gets an answer."""
    channel = await lab.channel("sync_engine", Role.VIEWER.value)
    stub = sync_service_pb2_grpc.SyncServiceStub(channel)
    await stub.ListJobs(sync_service_pb2.ListJobsRequest(), timeout=60)
    await channel.close()


async def test_a_thousand_idle_streams(lab: WholeLab) -> None:
    before = lab.memory("sync_engine")
    channels = [await lab.channel("sync_engine", Role.VIEWER.value) for _ in range(CHANNELS)]
    calls = []
    for number in range(STREAMS):
        channel = channels[number % CHANNELS]
        if number % 2:
            jobs = sync_service_pb2_grpc.SyncServiceStub(channel)
            calls.append(jobs.WatchJobs(sync_service_pb2.WatchJobsRequest(equipment_id=EQUIPMENT)))
        else:
            log = event_log_service_pb2_grpc.EventLogServiceStub(channel)
            calls.append(log.SubscribeEvents(event_log_service_pb2.SubscribeEventsRequest(after_position=0)))
    # Those that have something to tell have told it: the streams are open, not on their way.
    await asyncio.gather(*(call.read() for call in calls[::2]))
    await answers(lab)
    assert lab.memory("sync_engine") < before + GROWTH
    for call in calls:
        call.cancel()
    for channel in channels:
        await channel.close()
    await answers(lab)
    await lab.assert_serving()


async def test_a_flood_of_connections(lab: WholeLab) -> None:
    before = lab.memory("sync_engine")
    host, _, port = lab.services["sync_engine"].address.rpartition(":")
    async with AsyncExitStack() as open_ones:
        for first in range(0, CONNECTIONS, 100):
            await asyncio.gather(*(connect(open_ones, host, int(port), n) for n in range(first, first + 100)))
        await answers(lab)
    assert lab.memory("sync_engine") < before + GROWTH
    await answers(lab)
    await lab.assert_serving()


async def connect(open_ones: AsyncExitStack, host: str, port: int, number: int) -> None:
    connection = open_ones.enter_context(socket.create_connection((host, port), timeout=60))
    try:
        connection.sendall(GARBAGE[number % len(GARBAGE)])
    except OSError:
        # It was thrown out already.
        return
