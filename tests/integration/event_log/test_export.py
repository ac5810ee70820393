"""ExportEvents: verbatim for the chain, readable for people, recorded before it is given."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from labferry.events.v1 import event_log_service_pb2 as pb
from labferry.events.v1.log_events_pb2 import LogExported
from libs.event_log.checkpoint import from_line
from libs.event_log.event import NewEvent
from libs.event_log.event_line import from_line as event_from_line
from libs.event_log.hash_chain import verify_chain
from tests.integration.event_log.changed_file import tamper
from tests.integration.event_log.events import collect, counted, noted, to
from tests.integration.event_log.served_log import Place, ServedLog, sealed, serving
from tests.integration.event_log.test_backup import received

BLOB = "5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9"


async def exported(served: ServedLog, **request: Any) -> list[bytes]:
    content, end = await received(served.stub.ExportEvents(pb.ExportEventsRequest(**request)))
    assert end.size == len(content)
    return content.splitlines()


async def filled(served: ServedLog) -> None:
    await served.blobs.put(b"0")
    await served.store.append([to("a", noted("ä \u2028", reason="why"), sealed(BLOB)), to("b", counted(2))])
    await served.store.append([to("a", NewEvent("test.later.v1", b"\x01\xff", "tester", may_ignore=True))])


async def test_the_whole_log(tmp_path: Path) -> None:
    async with serving(Place(tmp_path)) as served:
        await filled(served)
        head, *lines, end = await exported(served, reason="inspection")
        events = await collect(served.store.read())
        assert [event_from_line(line)[0] for line in lines] == events
        assert verify_chain(served.store.store_id, [event_from_line(line)[0] for line in lines]) is None
        record = events[-1]
        assert (record.type, record.actor, record.reason) == ("log.exported.v1", "operator-1", "inspection")
        told = LogExported.FromString(record.payload)
        assert (told.first_position, told.last_position) == (1, 5)
        first = json.loads(head)
        assert (first["layout"], first["store_id"]) == ("labferry.export.v1", served.store.store_id)
        assert (first["first_position"], first["last_position"], first["previous_hash"]) == (1, 6, "00" * 32)
        note, blob = json.loads(lines[1]), json.loads(lines[2])
        assert (note["payload_json"], note["reason"]) == ("ä \u2028", "why")
        assert blob["payload_json"]["snapshot_blob"] == BLOB
        assert blob["blobs"] == [BLOB]
        unknown = json.loads(lines[4])
        assert (unknown["payload_json"], unknown["payload_type"]) == (None, "")
        assert base64.b64decode(unknown["payload"]) == b"\x01\xff"
        last = json.loads(end)
        assert (last["events"], last["head_hash"]) == (6, record.hash.hex())
        signed = from_line(json.dumps(last["checkpoint"]).encode())
        assert signed.is_genuine() and signed.public_key in served.keeper.trusted
        assert (signed.checkpoint.position, signed.checkpoint.hash) == (6, record.hash)


async def test_a_range(tmp_path: Path) -> None:
    async with serving(Place(tmp_path)) as served:
        await filled(served)
        head, *lines, end = await exported(served, from_position=2, to_position=4)
        events = await collect(served.store.read())
        assert [json.loads(line)["position"] for line in lines] == [2, 3, 4]
        assert json.loads(head)["previous_hash"] == events[0].hash.hex()
        assert json.loads(end)["head_hash"] == events[3].hash.hex()
        told = LogExported.FromString(events[-1].payload)
        assert (told.first_position, told.last_position) == (2, 4)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"from_position": 9}, grpc.StatusCode.OUT_OF_RANGE),
        ({"to_position": 9}, grpc.StatusCode.OUT_OF_RANGE),
        ({"from_position": 3, "to_position": 2}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"from_position": -1}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"reason": "x" * 1001}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"reason": "two\nlines"}, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_what_is_refused_is_not_recorded(tmp_path: Path, request_: dict[str, Any], code: grpc.StatusCode) -> None:
    async with serving(Place(tmp_path)) as served:
        await filled(served)
        head = served.store.head
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await exported(served, **request_)
        assert caught.value.code() is code
        assert served.store.head == head


async def test_a_damaged_log_ends_the_export_where_it_is(tmp_path: Path) -> None:
    async with serving(Place(tmp_path)) as served:
        await filled(served)
        tamper(served.place.database, "UPDATE events SET actor = 'nobody' WHERE position = 3")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await exported(served)
        assert caught.value.code() is grpc.StatusCode.DATA_LOSS
        assert "position 3" in (caught.value.details() or "")


async def test_the_checkpoints_are_listed(tmp_path: Path) -> None:
    async with serving(Place(tmp_path)) as served:
        await filled(served)
        made = await served.keeper.make()
        answer = await served.stub.ListCheckpoints(pb.ListCheckpointsRequest(limit=1))
        (listed,) = answer.checkpoints
        assert (listed.position, listed.signature) == (5, made.signature.hex())
        assert [(folder.last_number, folder.problem) for folder in answer.folders] == [(listed.number, "")] * 2
        assert [folder.file for folder in answer.folders] == [str(path) for path in served.place.checkpoint_files()]
        with pytest.raises(grpc.aio.AioRpcError):
            await served.stub.ListCheckpoints(pb.ListCheckpointsRequest(limit=-1))
