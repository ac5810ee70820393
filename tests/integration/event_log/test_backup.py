"""BackUp and a restore elsewhere: the same events, blobs and answers, a new name; damage is refused and located."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from msgspec.structs import replace

from labferry.events.v1 import event_log_service_pb2 as pb
from labferry.events.v1 import event_log_service_pb2_grpc
from labferry.events.v1.log_events_pb2 import StoreCreated
from libs.event_log.backup_reading import BackupError
from libs.event_log.event import RecordedEvent
from libs.event_log.file_pieces import PIECE_BYTES
from libs.event_log.hash_chain import FIRST_PREVIOUS_HASH, event_hash
from libs.event_log.restore import Restore, RestoredLog
from libs.event_log.sqlite_restore import NewSqliteLog
from libs.event_log.store import LogInUseError, LogLocationError, LogUnavailableError, RequestKey
from libs.service_kit.channel import open_channel, read_token
from libs.service_kit.identity import ServiceName, service_token_file
from tests.integration.event_log.changed_file import tamper
from tests.integration.event_log.events import collect, counted, noted, to
from tests.integration.event_log.served_log import SERVICE, Place, ServedLog, sealed, serving

SMALL, LARGE = b"0", bytes(range(256)) * 3 * 4096
NOW_NS = 1_800_000_000_000_000_000


@dataclass(frozen=True)
class Backup:
    """A backup on disk, and what it was made from."""

    path: Path
    sha256: str
    store_id: str
    events: list[RecordedEvent]


def request(name: str) -> RequestKey:
    return RequestKey("tester", "Method", name, name.encode())


async def received(call: AsyncIterator[pb.FilePiece]) -> tuple[bytes, pb.FileEnd]:
    content = bytearray()
    end: pb.FileEnd | None = None
    async for piece in call:
        assert end is None
        assert len(piece.data) <= PIECE_BYTES
        content += piece.data
        end = piece.end if piece.HasField("end") else None
    assert end is not None
    return bytes(content), end


async def filled(served: ServedLog) -> None:
    small, large = await served.blobs.put(SMALL), await served.blobs.put(LARGE)
    await served.store.append([to("a", noted("ä"), sealed(small)), to("b", sealed(large))], request("one"))
    await served.store.append([to("a", *(noted("x" * 20_000) for _ in range(250)))], request("two"))
    await served.store.append([to("b", sealed(small), counted(1))])
    await served.store.append([], request("none"))


async def back_up(served: ServedLog, path: Path) -> Backup:
    content, end = await received(served.stub.BackUp(pb.BackUpRequest(reason="weekly")))
    assert (end.size, end.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    path.write_bytes(content)
    return Backup(path, end.sha256, served.store.store_id, await collect(served.store.read()))


@pytest.fixture
async def backup(tmp_path: Path) -> Backup:
    (tmp_path / "old").mkdir()
    async with serving(Place(tmp_path / "old")) as served:
        await filled(served)
        return await back_up(served, tmp_path / "log.tar")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Place:
    (tmp_path / "new").mkdir()
    return Place(tmp_path / "new")


def restore(backup: Backup, place: Place, *, sha256: str = "", service: str = SERVICE) -> RestoredLog:
    def begin(work_folder: Path) -> NewSqliteLog:
        return NewSqliteLog(place.database, work_folder)

    return Restore(service, "2.0.0", NOW_NS).run(backup.path, sha256 or backup.sha256, place.service, begin)


async def test_what_a_backup_holds(backup: Backup, tmp_path: Path) -> None:
    last = backup.events[-1]
    assert (last.type, last.actor, last.reason) == ("log.backed_up.v1", "operator-1", "weekly")
    with tarfile.open(backup.path) as archive:
        names = archive.getnames()
        archive.extractall(tmp_path / "out")
    assert names[:2] == ["manifest.json", "checkpoint.json"]
    assert names[-1] == "SHA256SUMS"
    for content in (SMALL, LARGE):
        digest = hashlib.sha256(content).hexdigest()
        assert names.count(f"blobs/{digest}") == 1
        assert (tmp_path / "out" / "blobs" / digest).read_bytes() == content
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_bytes())
    assert (manifest["head_position"], manifest["head_hash"]) == (last.position, last.hash.hex())
    checkpoint = json.loads((tmp_path / "out" / "checkpoint.json").read_bytes())
    assert (checkpoint["position"], checkpoint["hash"]) == (last.position, last.hash.hex())
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=tmp_path / "out", check=True)


async def test_a_restored_log(backup: Backup, elsewhere: Place) -> None:
    restored = restore(backup, elsewhere)
    assert os.listdir(elsewhere.service / "blobs")
    assert not (elsewhere.service / "restoring").exists()
    async with serving(elsewhere) as served:
        answer = await served.verify()
        assert answer.intact, answer
        assert answer.blobs_checked == 2
        assert served.store.store_id == restored.store_id != backup.store_id
        events = await collect(served.store.read())
        assert events[-1].hash == restored.head_hash
        assert len(events) == len(backup.events)
        for now, then in zip(events[1:], backup.events[1:], strict=True):
            assert replace(now, hash=b"") == replace(then, hash=b"")
        assert await served.blobs.read(hashlib.sha256(LARGE).hexdigest()) == LARGE
        again = await served.store.append([to("a", noted("other"))], request("one"))
        assert again.repeated
        assert [event.event_id for event in again.events] == [event.event_id for event in backup.events[1:4]]
        assert (await served.store.append([], request("none"))).repeated
        await served.store.append([to("a", noted("goes on"), expected=251)])
        stale = pb.SubscribeEventsRequest(store_id=backup.store_id, after_position=3)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(aiter(served.stub.SubscribeEvents(stale)))
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_the_restored_log_proves_the_old_one(backup: Backup, elsewhere: Place) -> None:
    restore(backup, elsewhere)
    async with serving(elsewhere) as served:
        events = await collect(served.store.read())
        # A time is found by halving the log, so times must not fall.
        assert await served.store.last_position_at(backup.events[5].recorded_ns - 1) < 6
    assert events[0].recorded_ns == backup.events[0].recorded_ns
    created = StoreCreated.FromString(events[0].payload)
    old = created.restored_from
    assert (created.service, created.version, old.restored_time.ToNanoseconds()) == (SERVICE, "2.0.0", NOW_NS)
    assert (old.store_id, old.head_position) == (backup.store_id, len(backup.events))
    first = old.first_event
    put_back = RecordedEvent(
        1, first.stream, first.revision, first.type, first.event_id, first.recorded_time.ToNanoseconds(), first.actor,
        first.payload.value, b"",
    )  # fmt: skip
    previous = FIRST_PREVIOUS_HASH
    for event in (put_back, *events[1 : old.head_position]):
        previous = event_hash(old.store_id, previous, event)
    assert previous == old.head_hash == backup.events[-1].hash


async def test_a_restored_log_is_backed_up_and_restored_again(backup: Backup, elsewhere: Place, tmp_path: Path) -> None:
    first = restore(backup, elsewhere)
    async with serving(elsewhere) as served:
        second_backup = await back_up(served, tmp_path / "second.tar")
    (tmp_path / "third").mkdir()
    third = Place(tmp_path / "third")
    restore(second_backup, third)
    async with serving(third) as served:
        assert (await served.verify()).intact
        created = StoreCreated.FromString((await collect(served.store.read(upto=1)))[0].payload)
    assert created.restored_from.store_id == first.store_id
    inner = StoreCreated.FromString(created.restored_from.first_event.payload.value)
    assert inner.restored_from.store_id == backup.store_id


async def test_a_backup_of_a_log_that_grows_meanwhile(tmp_path: Path, elsewhere: Place) -> None:
    (tmp_path / "old").mkdir()
    async with serving(Place(tmp_path / "old")) as served:
        await filled(served)
        done = asyncio.Event()

        async def write_on() -> None:
            number = 0
            while not done.is_set():
                await served.store.append([to("c", counted(number))], request(f"c{number}"))
                number += 1

        writing = asyncio.create_task(write_on())
        made = await back_up(served, tmp_path / "log.tar")
        done.set()
        await writing
    restored = restore(made, elsewhere)
    head = restored.manifest.head_position
    assert made.events[head - 1].type == "log.backed_up.v1"
    async with serving(elsewhere) as served:
        assert (await served.verify()).intact
        records = [record async for page in served.store.requests(1 << 60) for record in page]
        assert max(record.last_position for record in records) <= head


Entries = dict[str, bytes]


def rewritten(backup: Backup, change: Callable[[Entries], None]) -> str:
    """Changes an archive as somebody would who knows its form. Its new SHA-256."""
    entries: Entries = {}
    with tarfile.open(backup.path) as archive:
        for member in archive:
            file = archive.extractfile(member)
            assert file is not None
            entries[member.name] = file.read()
    change(entries)
    with tarfile.open(backup.path, "w") as archive:
        for name, content in entries.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return hashlib.sha256(backup.path.read_bytes()).hexdigest()


EVENTS, REQUESTS = "events/00000001.jsonl", "requests/00000001.jsonl"
SMALL_BLOB = f"blobs/{hashlib.sha256(SMALL).hexdigest()}"


def change_event(entries: Entries) -> None:
    entries[EVENTS] = entries[EVENTS].replace(b'"revision":7,', b'"revision":8,', 1)


def change_what_people_read(entries: Entries) -> None:
    entries[EVENTS] = entries[EVENTS].replace("ä".encode(), "ö".encode(), 1)


def remove_event(entries: Entries) -> None:
    lines = entries[EVENTS].splitlines(keepends=True)
    entries[EVENTS] = b"".join(lines[:4] + lines[5:])


def remove_last_events(entries: Entries) -> None:
    last = max(name for name in entries if name.startswith("events/"))
    entries[last] = b"".join(entries[last].splitlines(keepends=True)[:-2])
    sums = ((hashlib.sha256(content).hexdigest(), name) for name, content in entries.items())
    entries["SHA256SUMS"] = "".join(
        f"{digest}  {name}\n" for digest, name in sums if not name.startswith(("blobs/", "SHA256SUMS"))
    ).encode()


def change_blob(entries: Entries) -> None:
    entries[SMALL_BLOB] = b"1"


def remove_blob(entries: Entries) -> None:
    del entries[SMALL_BLOB]


def change_request(entries: Entries) -> None:
    entries[REQUESTS] = entries[REQUESTS].replace(b'"last_position":4', b'"last_position":3', 1)


def change_manifest(entries: Entries) -> None:
    entries["manifest.json"] = entries["manifest.json"].replace(b'"made_time":"20', b'"made_time":"19', 1)


def garble_event(entries: Entries) -> None:
    entries[EVENTS] = entries[EVENTS].replace(b'{"position":9,', b'{"position":"9",', 1)


def add_entry(entries: Entries) -> None:
    entries["../../evil"] = b"x"


@pytest.mark.parametrize(
    ("change", "entry", "position"),
    [
        (change_event, EVENTS, 10),
        (remove_event, EVENTS, 5),
        (remove_last_events, "", 256),
        (garble_event, EVENTS, 9),
        (change_blob, SMALL_BLOB, 3),
        (remove_blob, "", 3),
        (change_what_people_read, EVENTS, 0),
        (change_request, REQUESTS, 0),
        (change_manifest, "manifest.json", 0),
        (add_entry, "../../evil", 0),
    ],
)
async def test_a_changed_backup_is_refused_and_the_change_located(
    backup: Backup, elsewhere: Place, change: Callable[[Entries], None], entry: str, position: int
) -> None:
    sha256 = rewritten(backup, change)
    with pytest.raises(BackupError) as caught:
        restore(backup, elsewhere, sha256=sha256)
    assert (caught.value.entry, caught.value.position) == (entry, position), caught.value
    assert os.listdir(elsewhere.service) == ["events.sqlite3.lock"]


async def test_a_backup_that_was_cut_off_or_is_another_file(backup: Backup, elsewhere: Place) -> None:
    content = backup.path.read_bytes()
    for length in (0, 100, 700, len(content) // 2, len(content) - 1024 - 512):
        backup.path.write_bytes(content[:length])
        with pytest.raises(BackupError):
            restore(backup, elsewhere, sha256=hashlib.sha256(content[:length]).hexdigest())
    backup.path.write_bytes(content)
    with pytest.raises(BackupError, match="the whole file's SHA-256"):
        restore(backup, elsewhere, sha256="0" * 64)
    assert os.listdir(elsewhere.service) == ["events.sqlite3.lock"]
    restore(backup, elsewhere)


async def test_a_log_is_never_replaced(backup: Backup, elsewhere: Place) -> None:
    async with serving(elsewhere) as served:
        store_id = served.store.store_id
        with pytest.raises(LogInUseError):
            restore(backup, elsewhere)
    with pytest.raises(LogLocationError, match="is a log already"):
        restore(backup, elsewhere)
    async with serving(elsewhere) as served:
        assert served.store.store_id == store_id
        assert (await served.verify()).intact


async def test_a_backup_of_another_service(backup: Backup, elsewhere: Place) -> None:
    with pytest.raises(BackupError, match="is of the service sync_engine, not secrets"):
        restore(backup, elsewhere, service="secrets")


async def test_an_interrupted_restore_leaves_nothing(
    backup: Backup, elsewhere: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A killed one can't clean up: this is what it leaves.
    (elsewhere.service / "restoring").mkdir(parents=True)
    (elsewhere.service / "restoring" / "events.sqlite3").write_bytes(b"half")
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", _no_link)
        with pytest.raises(LogUnavailableError, match="no link"):
            restore(backup, elsewhere)
    assert not elsewhere.database.exists()
    assert not (elsewhere.service / "restoring").exists()
    restore(backup, elsewhere)
    async with serving(elsewhere) as served:
        assert (await served.verify()).intact


_KILLED = """
import os, signal, sys
from pathlib import Path
from libs.event_log.restore import Restore
from libs.event_log.sqlite_restore import NewSqliteLog
archive, sha256, state, method = sys.argv[1:]
setattr(NewSqliteLog, method, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
begin = lambda work_folder: NewSqliteLog(Path(state) / "events.sqlite3", work_folder)
Restore("sync_engine", "2.0.0", 1).run(Path(archive), sha256, Path(state), begin)
"""


@pytest.mark.parametrize("method", ["add_events", "add_requests", "place"])
async def test_a_restore_that_is_killed(backup: Backup, elsewhere: Place, method: str) -> None:
    arguments = [str(backup.path), backup.sha256, str(elsewhere.service), method]
    killed = subprocess.run([sys.executable, "-c", _KILLED, *arguments], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not elsewhere.database.exists()
    restore(backup, elsewhere)
    async with serving(elsewhere) as served:
        assert (await served.verify()).intact


def _no_link(*_: object, **__: object) -> None:
    raise OSError("no link")


async def test_a_damaged_log_gives_no_backup(tmp_path: Path) -> None:
    async with serving(Place(tmp_path)) as served:
        await filled(served)
        served.place.blob(SMALL_BLOB.removeprefix("blobs/")).unlink()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await received(served.stub.BackUp(pb.BackUpRequest()))
        assert caught.value.code() is grpc.StatusCode.DATA_LOSS
        tamper(served.place.database, "UPDATE events SET actor = 'nobody' WHERE position = 2")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await received(served.stub.BackUp(pb.BackUpRequest()))
        assert caught.value.code() is grpc.StatusCode.DATA_LOSS
        assert "position 2" in (caught.value.details() or "")


async def test_only_administrators_get_one(tmp_path: Path) -> None:
    async with serving(Place(tmp_path)) as served:
        token = read_token(service_token_file(served.place.state, ServiceName.SYNC_ENGINE))
        async with open_channel(served.address, lambda: token) as channel:
            stub: event_log_service_pb2_grpc.EventLogServiceAsyncStub
            stub = event_log_service_pb2_grpc.EventLogServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await received(stub.BackUp(pb.BackUpRequest()))
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert served.store.head == 1


async def test_a_backup_that_nobody_reads_to_its_end(tmp_path: Path) -> None:
    async with serving(Place(tmp_path)) as served:
        await filled(served)
        call = served.stub.BackUp(pb.BackUpRequest())
        await anext(aiter(call))
        call.cancel()
        assert (await collect(served.store.read_backwards(limit=1)))[0].type == "log.backed_up.v1"
        content, end = await received(served.stub.BackUp(pb.BackUpRequest()))
        assert len(content) == end.size
