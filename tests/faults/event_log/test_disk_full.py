"""A real full disk: a small memory filesystem of the test's own. Mounting it needs root, as in CI."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from libs.event_log.blob_store import BlobStore
from libs.event_log.log_verification import verify_log
from libs.event_log.projection import ProjectionRunner
from libs.event_log.projection_failure import ReadModelsFullError
from libs.event_log.sqlite_store import SqliteEventStore
from libs.event_log.store import AppendResult, LogDiskFullError, RequestKey
from tests.integration.event_log.counting import Notes, notes
from tests.integration.event_log.events import EVENT_TYPES, collect, noted, to

SIZE = 2 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "labferry-test", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Takes the rest of the disk."""
    ballast = disk / "ballast"
    with open(ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return ballast


async def test_writes_are_refused_and_reads_go_on(small_disk: Path, tmp_path: Path) -> None:
    store = await SqliteEventStore.open(small_disk / "events.sqlite3", service="test", version="0.0.0")
    await store.append([to("s", noted("before"))])
    ballast = await asyncio.to_thread(fill, small_disk)

    outcomes = await asyncio.gather(
        *(
            store.append([to(f"s-{number}", noted("x" * 50_000))], RequestKey("tester", "m", str(number), b"d"))
            for number in range(40)
        ),
        return_exceptions=True,
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, LogDiskFullError)]
    recorded = [outcome for outcome in outcomes if isinstance(outcome, AppendResult)]
    assert refused
    assert len(refused) + len(recorded) == 40
    assert store.head == 2 + len(recorded)
    assert len(await collect(store.read())) == store.head
    assert (await verify_log(store)).first_break is None

    os.unlink(ballast)
    for number in range(10):
        key = RequestKey("tester", "m", str(number), b"d")
        again = await store.append([to(f"s-{number}", noted("x" * 50_000))], key)
        assert again.repeated == isinstance(outcomes[number], AppendResult)
    assert (await verify_log(store)).first_break is None
    await store.close()

    reopened = await SqliteEventStore.open(small_disk / "events.sqlite3", service="test", version="0.0.0")
    assert reopened.damage is None
    verdict = await verify_log(reopened)
    assert verdict.first_break is None
    assert verdict.events_checked == reopened.head
    await reopened.close()


async def test_a_full_disk_at_the_first_start(small_disk: Path) -> None:
    ballast = await asyncio.to_thread(fill, small_disk)
    with pytest.raises(LogDiskFullError):
        await SqliteEventStore.open(small_disk / "events.sqlite3", service="test", version="0.0.0")
    os.unlink(ballast)
    store = await SqliteEventStore.open(small_disk / "events.sqlite3", service="test", version="0.0.0")
    assert store.head == 1
    await store.close()


async def test_read_models_without_space_leave_the_log_alone(small_disk: Path, tmp_path: Path) -> None:
    store = await SqliteEventStore.open(tmp_path / "events.sqlite3", service="test", version="0.0.0")
    runner = ProjectionRunner(store, EVENT_TYPES, small_disk / "read_models.sqlite3", [Notes()])
    await runner.start()
    await store.append([to("s", noted("before"))])
    assert await runner.query(notes) == ["before"]
    ballast = await asyncio.to_thread(fill, small_disk)
    with pytest.raises(ReadModelsFullError):
        while True:
            await store.append([to("s", noted("x" * 100_000))])
            await runner.reached(store.head)
    with pytest.raises(ReadModelsFullError):
        await runner.rebuild(dry_run=True)
    await store.append([to("s", noted("still recorded"))])
    assert runner.failure is None
    os.unlink(ballast)
    async with asyncio.timeout(30):
        while (reached := await asyncio.gather(runner.query(notes), return_exceptions=True))[0] != [
            *["before"],
            *["x" * 100_000] * (store.head - 3),
            "still recorded",
        ]:
            assert isinstance(reached[0], ReadModelsFullError)
            await asyncio.sleep(0)
    await runner.close()
    await store.close()


async def test_a_blob_without_space_leaves_nothing_half_written(small_disk: Path) -> None:
    blobs = BlobStore(small_disk / "blobs")
    digest = await blobs.put(b"evidence")
    ballast = await asyncio.to_thread(fill, small_disk)
    with pytest.raises(LogDiskFullError):
        await blobs.put(os.urandom(SIZE))
    os.unlink(ballast)
    assert await blobs.read(digest) == b"evidence"
    assert blobs.sweep() == 0
