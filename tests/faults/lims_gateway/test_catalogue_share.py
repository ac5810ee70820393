"""The catalogue on a share that fails, and under producers and readers at the same time."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from structlog.testing import capture_logs

from labferry.lims.v1 import lims_service_pb2 as pb
from libs.service_kit.work_threads import WorkThreads
from services.lims_gateway.projects import catalogue
from services.lims_gateway.projects.catalogue import CatalogueFile
from services.lims_gateway.projects.project import Project, ProjectRows, ProjectStatus
from tests.integration.lims_gateway.running_lims import ROWS, Site
from tests.integration.secrets.running_service import refusal

ENDPOINT = "https://lims.example/api/v1"
UNREACHABLE = (grpc.StatusCode.UNAVAILABLE, "LIMS_UNREACHABLE")


@pytest.fixture
async def threads() -> AsyncIterator[WorkThreads]:
    threads = WorkThreads("catalogue")
    yield threads
    threads.close()


@pytest.fixture
def share(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own, as a share is one. Mounting it needs root, as in CI."""
    folder = tmp_path / "share"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "labferry-test", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def produced(count: int, name: str = "project") -> ProjectRows:
    return ProjectRows([Project(f"u-{n}", f"P-{n}", f"{name} {n}", ProjectStatus.ACTIVE) for n in range(count)])


async def written(file: CatalogueFile, rows: ProjectRows) -> list[Any]:
    """Writes, and gives what the log says."""
    with capture_logs() as lines:
        file.offer(rows, 1_800_000_000 * 10**9)
        await file.close()
    return lines


async def test_a_share_that_is_full_read_only_or_gone_keeps_what_it_had(share: Path, threads: WorkThreads) -> None:
    path = share / "lims-catalogue.json"
    file = CatalogueFile(path, ENDPOINT, "station-1", threads, structlog.get_logger())
    assert await written(file, produced(3)) == []
    assert path.stat().st_mode & 0o777 == 0o644
    good = path.read_bytes()

    full = await written(file, produced(5_000))
    assert [(line["event"], line["problem"]) for line in full] == [("catalogue_not_written", "No space left on device")]
    subprocess.run(["mount", "-o", "remount,ro", str(share)], check=True)
    read_only = await written(file, produced(4))
    assert [line["problem"] for line in read_only] == ["Read-only file system"]
    assert [p.name for p in share.iterdir()] == [path.name]
    assert path.read_bytes() == good
    kept = await file.read()
    assert kept is not None
    assert len(kept.rows.projects) == 3

    gone = CatalogueFile(share / "gone" / path.name, ENDPOINT, "station-1", threads, structlog.get_logger())
    assert [line["problem"] for line in await written(gone, produced(3))] == ["No such file or directory"]
    with capture_logs() as lines:
        assert await gone.read() is None
    assert [line["problem"] for line in lines] == ["it is missing"]


async def test_a_share_that_hangs_holds_up_nobody(
    tmp_path: Path, threads: WorkThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe that nobody reads is as silent as a dead share."""
    monkeypatch.setattr(catalogue, "_SHARE_SECONDS", 0.2)
    monkeypatch.setattr(catalogue, "_replace", lambda path, content: path.open("wb"))
    monkeypatch.setattr(catalogue, "read_plain_file", lambda path: path.read_bytes())
    written_to, read_from = (
        CatalogueFile(tmp_path / name, ENDPOINT, "station-1", threads, structlog.get_logger()) for name in "ab"
    )
    for name in "ab":
        os.mkfifo(tmp_path / name)
    lines = await written(written_to, produced(3))
    with capture_logs() as more:
        assert await read_from.read() is None
    silent = "the share does not answer within 0.2 seconds"
    assert [(line["event"], line["problem"]) for line in (*lines, *more)] == [
        ("catalogue_not_written", silent),
        ("catalogue_not_read", silent),
    ]


async def test_a_leftover_of_another_producer_with_our_process_id_is_left_alone(
    tmp_path: Path, threads: WorkThreads
) -> None:
    path = tmp_path / "lims-catalogue.json"
    theirs = tmp_path / f"lims-catalogue.json.tmp.{os.getpid()}"
    theirs.write_bytes(b"half a catal")
    file = CatalogueFile(path, ENDPOINT, "station-1", threads, structlog.get_logger())
    assert await written(file, produced(3)) == []
    assert json.loads(path.read_bytes())["produced_by"] == "station-1"
    assert theirs.read_bytes() == b"half a catal"


async def test_two_producers_and_a_reader_always_leave_a_whole_catalogue(tmp_path: Path, threads: WorkThreads) -> None:
    path = tmp_path / "lims-catalogue.json"
    producers = [
        CatalogueFile(path, ENDPOINT, name, threads, structlog.get_logger()) for name in ("station-1", "station-2")
    ]
    assert await written(producers[0], produced(400, "station-1")) == []
    ended, seen = threading.Event(), set[str]()

    def read_all_the_time() -> None:
        while not ended.is_set():
            document = json.loads(path.read_bytes())
            who = document["produced_by"]
            assert [row["name"] for row in document["projects"]] == [f"{who} {n}" for n in range(400)]
            seen.add(who)

    reading = asyncio.create_task(asyncio.to_thread(read_all_the_time))
    try:
        async with asyncio.timeout(60):
            # Both at once, again and again, until the reader has met either.
            while seen != {"station-1", "station-2"}:
                for name, producer in zip(("station-1", "station-2"), producers, strict=True):
                    producer.offer(produced(400, name), 1)
                await asyncio.gather(*(p.close() for p in producers))
    finally:
        ended.set()
        await reading
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.asyncio(loop_scope="session")
async def test_a_machine_that_cannot_reach_the_lims_answers_from_the_catalogue(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "lims-catalogue.json"
    stub = await site.restart_gateway({"offline_catalogue_path": str(path)})
    live = await stub.ListProjects(pb.ListProjectsRequest())
    async with asyncio.timeout(60):
        while not path.exists():
            await asyncio.sleep(0.02)
    await site.lims.behave("drop")
    stub = await site.restart_gateway({"offline_catalogue_path": str(path)})
    offline = await stub.ListProjects(pb.ListProjectsRequest(page_size=5))
    assert (offline.source, offline.stale) == (pb.SOURCE_OFFLINE_CATALOGUE, True)
    assert [p.uid for p in offline.projects] == [p.uid for p in live.projects[:5]]
    assert offline.freshness_time.seconds == live.freshness_time.seconds
    assert offline.produced_by
    assert abs(offline.produced_at.seconds - offline.freshness_time.seconds) < 600
    assert site.lims.address in offline.upstream_failure
    rest = await stub.ListProjects(pb.ListProjectsRequest(page_token=offline.next_page_token))
    assert [p.uid for p in rest.projects] == [p.uid for p in live.projects[5:]]
    found = await stub.GetProject(pb.GetProjectRequest(id="PROJ-0042"))
    assert (found.source, found.stale, found.produced_by) == (offline.source, True, offline.produced_by)
    missing = stub.GetProject(pb.GetProjectRequest(id="PROJ-9999"))
    assert await refusal(missing) == (grpc.StatusCode.NOT_FOUND, "PROJECT_NOT_FOUND")
    # Nothing of it went into the cache, nor into the log.
    assert [e.type for e in await site.gateway.events()] == ["log.store_created.v1"]
    await _unusable_ones(site, stub, path)


async def _unusable_ones(site: Site, stub: Any, path: Path) -> None:
    good = json.loads(path.read_bytes())
    for content, problem in (
        (json.dumps({**good, "schema_version": "2.0"}), "schema version"),
        (json.dumps({**good, "lims_endpoint": "https://another-lab.example/api/v1"}), "another-lab.example"),
        ("{", "no catalogue"),
    ):
        path.write_text(content)
        assert await refusal(stub.ListProjects(pb.ListProjectsRequest())) == UNREACHABLE
        await site.until_logged(problem)
    path.unlink()
    path.mkdir()
    assert await refusal(stub.ListProjects(pb.ListProjectsRequest())) == UNREACHABLE
    await site.until_logged("it is unreadable")
    path.rmdir()
    assert await refusal(stub.ListProjects(pb.ListProjectsRequest())) == UNREACHABLE
    await site.until_logged("it is missing")
    old = {**good, "produced_at": "2001-01-01T00:00:00Z", "projects": good["projects"][:1]}
    path.write_text(json.dumps(old))
    answer = await stub.ListProjects(pb.ListProjectsRequest())
    assert (len(answer.projects), answer.produced_at.seconds) == (1, 978_307_200)
    assert len(good["projects"]) == len(ROWS)
