"""EventLogService over gRPC, through the real server with identities and error mapping."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import structlog
from google.rpc import error_details_pb2, status_pb2

from labferry.events.v1 import event_log_service_pb2 as pb
from labferry.events.v1 import event_log_service_pb2_grpc, event_pb2
from libs.event_log.errors import EVENTS_DOMAIN, as_labferry_error
from libs.event_log.event import NewEvent
from libs.event_log.projection import ProjectionRunner, ProjectionStoppedError
from libs.event_log.servicer import EventLogServicer
from libs.event_log.sqlite_store import SqliteEventStore
from libs.service_kit.call_log import CallLog
from libs.service_kit.channel import open_channel, read_token
from libs.service_kit.identities import ensure_identities
from libs.service_kit.identity import OPERATOR_TOKEN_FILE, READERS
from libs.service_kit.server import PublishedService, ServiceServer
from libs.service_kit.settings import LoggingSettings
from tests.integration.event_log.counting import Notes, SumPerStream
from tests.integration.event_log.events import EVENT_TYPES, counted, noted, to

METHODS = (
    *("GetServerInfo", "ReadEvents", "SubscribeEvents", "VerifyLog", "RebuildProjections"),
    *("ExportEvents", "BackUp", "ListCheckpoints"),
)


@dataclass
class Service:
    """A served log and a stub on it."""

    store: SqliteEventStore
    database: Path
    runner: ProjectionRunner
    draining: asyncio.Event
    server: ServiceServer
    stub: event_log_service_pb2_grpc.EventLogServiceAsyncStub


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    store = await SqliteEventStore.open(tmp_path / "events.sqlite3", service="test", version="1.2.3")
    database = tmp_path / "read_models.sqlite3"
    runner = ProjectionRunner(store, EVENT_TYPES, database, (SumPerStream(), Notes()))
    await runner.start()
    draining = asyncio.Event()
    published = PublishedService(
        full_name="labferry.events.v1.EventLogService",
        servicer=EventLogServicer(store, EVENT_TYPES, runner, "1.2.3", draining),
        add_to_server=event_log_service_pb2_grpc.add_EventLogServiceServicer_to_server,
        roles=dict.fromkeys(METHODS, READERS),
    )
    identities = ensure_identities(tmp_path / "state")
    logger = structlog.get_logger()
    server = ServiceServer(
        "127.0.0.1:0", [published], identities, logger, CallLog(LoggingSettings(), "test", logger), as_labferry_error
    )
    address = await server.start()
    token = read_token(tmp_path / "state" / OPERATOR_TOKEN_FILE)
    async with open_channel(address, lambda: token) as channel:
        stub: event_log_service_pb2_grpc.EventLogServiceAsyncStub = event_log_service_pb2_grpc.EventLogServiceStub(
            channel
        )
        yield Service(store, database, runner, draining, server, stub)
    await server.drain(draining, 1)
    await runner.close()
    await store.close()


async def refusal(call: Awaitable[object]) -> tuple[grpc.StatusCode, error_details_pb2.ErrorInfo]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    status = status_pb2.Status.FromString(caught.value.trailing_metadata()["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return caught.value.code(), info


async def read(service: Service, request: pb.ReadEventsRequest) -> list[event_pb2.Event]:
    return [event async for batch in service.stub.ReadEvents(request) for event in batch.events]


async def test_server_info(service: Service) -> None:
    info = await service.stub.GetServerInfo(pb.GetServerInfoRequest())
    assert (info.version, info.store_id) == ("1.2.3", service.store.store_id)
    assert (info.head_position, info.oldest_position, info.caller) == (1, 1, "operator-1")
    assert list(info.roles) == ["admin", "operator"]


async def test_reading(service: Service) -> None:
    await service.store.append([to("a", noted("one", reason="why", correlation_id="c")), to("b", counted(2))])
    events = await read(service, pb.ReadEventsRequest())
    assert [event.position for event in events] == [1, 2, 3]
    second = events[1]
    assert (second.stream, second.type, second.actor, second.reason) == ("a", "test.noted.v1", "tester", "why")
    assert second.payload.type_url == "type.googleapis.com/google.protobuf.StringValue"
    assert second.recorded_time.ToNanoseconds() == (await service.store.read_stream("a"))[0].recorded_ns
    assert len(second.hash) == 32
    assert [event.position for event in await read(service, pb.ReadEventsRequest(from_position=2, limit=1))] == [2]
    assert [event.position for event in await read(service, pb.ReadEventsRequest(backwards=True))] == [3, 2, 1]
    backwards = pb.ReadEventsRequest(from_position=2, backwards=True, limit=1)
    assert [event.position for event in await read(service, backwards)] == [2]
    assert [event.position for event in await read(service, pb.ReadEventsRequest(stream="b"))] == [3]
    assert [event.position for event in await read(service, pb.ReadEventsRequest(types=["test.noted.v1"]))] == [2]


async def test_reading_nothing_still_names_the_store(service: Service) -> None:
    batches = [batch async for batch in service.stub.ReadEvents(pb.ReadEventsRequest(stream="none"))]
    assert [(len(batch.events), batch.store_id) for batch in batches] == [(0, service.store.store_id)]


async def test_large_events_fit_their_messages(service: Service) -> None:
    await service.store.append([to("a", *(noted("x" * 1_000_000) for _ in range(8)))])
    assert len(await read(service, pb.ReadEventsRequest())) == 9


async def test_an_unknown_type_is_passed_on_as_it_is(service: Service) -> None:
    await service.store.append([to("a", NewEvent("test.later.v1", b"\x01", "tester", may_ignore=True))])
    event = (await read(service, pb.ReadEventsRequest(stream="a")))[0]
    assert event.payload.value == b"\x01"
    assert event.payload.type_url == "type.labferry.unknown/test.later.v1"


async def test_subscribing(service: Service) -> None:
    await service.store.append([to("a", noted("one"))])
    call = service.stub.SubscribeEvents(pb.SubscribeEventsRequest(after_position=0))
    responses = aiter(call)
    first = await anext(responses)
    assert [event.position for event in first.events.events] == [1, 2]
    assert (first.position, first.store_id) == (2, service.store.store_id)
    caught_up = await anext(responses)
    assert caught_up.WhichOneof("content") == "caught_up"
    await service.store.append([to("a", noted("two"))])
    live = await anext(responses)
    assert [event.position for event in live.events.events] == [3]
    call.cancel()


async def test_a_drain_ends_subscriptions_at_once(service: Service) -> None:
    call = service.stub.SubscribeEvents(pb.SubscribeEventsRequest())
    responses = aiter(call)
    await anext(responses)
    service.draining.set()
    code, info = await refusal(anext(responses))
    assert (code, info.metadata["dependency"]) == (grpc.StatusCode.UNAVAILABLE, "event_log")


@pytest.mark.parametrize(
    ("request_", "code", "reason"),
    [
        (
            pb.SubscribeEventsRequest(store_id="other", after_position=0),
            grpc.StatusCode.FAILED_PRECONDITION,
            "FOREIGN_CURSOR",
        ),
        (pb.SubscribeEventsRequest(after_position=9), grpc.StatusCode.OUT_OF_RANGE, "POSITION_BEYOND_HEAD"),
        (pb.SubscribeEventsRequest(after_position=-1), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"),
    ],
)
async def test_cursors_that_are_refused(
    service: Service, request_: pb.SubscribeEventsRequest, code: grpc.StatusCode, reason: str
) -> None:
    got, info = await refusal(anext(aiter(service.stub.SubscribeEvents(request_))))
    assert (got, info.reason) == (code, reason)
    assert info.domain == ("labferry" if reason == "INVALID_FIELD" else EVENTS_DOMAIN)


async def test_verifying(service: Service) -> None:
    await service.store.append([to("a", *(counted(number) for number in range(20)))])
    intact = await service.stub.VerifyLog(pb.VerifyLogRequest())
    assert (intact.intact, intact.head_position, intact.events_checked) == (True, 21, 21)
    assert intact.head_hash == (await service.store.read_stream("a"))[-1].hash.hex()
    part = await service.stub.VerifyLog(pb.VerifyLogRequest(from_position=5, to_position=9))
    assert (part.intact, part.events_checked) == (True, 5)
    code, info = await refusal(service.stub.VerifyLog(pb.VerifyLogRequest(to_position=50)))
    assert (code, info.reason) == (grpc.StatusCode.OUT_OF_RANGE, "POSITION_BEYOND_HEAD")
    code, _ = await refusal(service.stub.VerifyLog(pb.VerifyLogRequest(from_position=5, to_position=4)))
    assert code == grpc.StatusCode.INVALID_ARGUMENT


async def test_verifying_a_changed_log(service: Service, tmp_path: Path) -> None:
    await service.store.append([to("a", *(counted(number) for number in range(20)))])
    with closing(sqlite3.connect(tmp_path / "events.sqlite3")) as connection:
        connection.execute("DROP TRIGGER events_refuse_update")
        connection.execute("UPDATE events SET actor = 'nobody' WHERE position = 7")
        connection.commit()
    answer = await service.stub.VerifyLog(pb.VerifyLogRequest())
    assert (answer.intact, answer.first_bad_position, answer.events_checked) == (False, 7, 6)
    assert "changed" in answer.reason


async def test_rebuilding(service: Service) -> None:
    await service.store.append([to("a", counted(1), noted("x"))])
    with closing(sqlite3.connect(service.database)) as connection:
        connection.execute("INSERT INTO sums VALUES ('invented', 1)")
        connection.commit()
    answer = await service.stub.RebuildProjections(pb.RebuildProjectionsRequest())
    assert [(report.name, report.differences) for report in answer.projections] == [("sum_per_stream", 1), ("notes", 0)]
    assert "invented" in answer.projections[0].difference_samples[0]


async def test_a_stopped_read_model(service: Service) -> None:
    following = (await service.stub.GetServerInfo(pb.GetServerInfoRequest())).projections
    assert [(p.name, p.position, p.HasField("stop")) for p in following] == [
        ("sum_per_stream", 1, False),
        ("notes", 1, False),
    ]
    await service.store.append([to("a", NewEvent("test.later.v1", b"", "tester"))])
    with pytest.raises(ProjectionStoppedError):
        await service.runner.reached(2)
    code, info = await refusal(service.stub.RebuildProjections(pb.RebuildProjectionsRequest(dry_run=True)))
    assert (code, info.reason) == (grpc.StatusCode.INTERNAL, "PROJECTION_STOPPED")
    assert dict(info.metadata) == {"projection": "event types", "position": "2"}
    stopped = await service.stub.GetServerInfo(pb.GetServerInfoRequest())
    where = pb.ProjectionStop(projection="event types", position=2, event_type="test.later.v1")
    assert [(p.name, p.position, p.stop) for p in stopped.projections] == [
        ("sum_per_stream", 1, where),
        ("notes", 1, where),
    ]
    # The rest of the service goes on.
    await service.store.append([to("a", noted("later"))])
    assert [event.position for event in await read(service, pb.ReadEventsRequest(from_position=2))] == [2, 3]
