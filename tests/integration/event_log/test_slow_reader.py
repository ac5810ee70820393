"""A subscriber that stops reading: it is cut off, holds nothing here, and resumes without a gap or a duplicate."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from labferry.events.v1 import event_log_service_pb2 as pb
from libs.service_kit import call
from tests.integration.event_log.events import noted, to
from tests.integration.event_log.test_servicer import Service, service  # noqa: F401 -- a fixture

EVENTS = 40


@pytest.fixture
async def busy(service: Service, monkeypatch: pytest.MonkeyPatch) -> Service:  # noqa: F811
    """A log of more than a connection buffers: each event fills a message of its own."""
    monkeypatch.setattr(call, "READER_SECONDS", 0.3)
    for number in range(EVENTS):
        await service.store.append([to("a", noted(f"{number}" + "x" * 900_000))])
    return service


def subscriptions() -> int:
    """How many follow the log here."""
    return sum("Event.wait" in repr(task.get_coro()) for task in asyncio.all_tasks())


async def test_it_is_cut_off_with_its_last_position_and_resumes_there(busy: Service) -> None:
    following = busy.stub.SubscribeEvents(pb.SubscribeEventsRequest(after_position=0))
    seen = [event.position for event in (await following.read()).events.events]
    before = subscriptions()
    async with asyncio.timeout(30):
        while subscriptions() == before:
            await asyncio.sleep(0.01)
    # Only now does the reader go on: what was under way arrives whole, and then the reason.
    with pytest.raises(grpc.aio.AioRpcError) as cut:
        while (response := await following.read()) is not grpc.aio.EOF:
            seen += [event.position for event in response.events.events]
            position = response.position
    status = rpc_status.from_call(cut.value)
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (cut.value.code(), info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "SUBSCRIBER_TOO_SLOW")
    assert info.metadata["last_position"] == str(position)
    assert len(seen) < EVENTS
    again = busy.stub.SubscribeEvents(pb.SubscribeEventsRequest(after_position=position))
    async for response in again:
        if response.WhichOneof("content") == "caught_up":
            break
        seen += [event.position for event in response.events.events]
    again.cancel()
    assert seen == list(range(1, EVENTS + 2))


async def test_one_that_waits_for_events_is_not_cut_off(busy: Service) -> None:
    following = busy.stub.SubscribeEvents(pb.SubscribeEventsRequest())
    assert (await following.read()).WhichOneof("content") == "caught_up"
    nothing_yet = asyncio.ensure_future(following.read())
    # Several times as long as a reader may take nothing.
    await asyncio.wait({nothing_yet}, timeout=1.5)
    assert not nothing_yet.done()
    await busy.store.append([to("a", noted("at last"))])
    assert [event.position for event in (await nothing_yet).events.events] == [EVENTS + 2]
    following.cancel()
