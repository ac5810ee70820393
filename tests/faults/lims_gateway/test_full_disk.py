"""The gateway's own disk is full while the LIMS has news: nothing is half done, and the projects that are known stay.

A small memory filesystem of the test's own; mounting it needs root, as in CI.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from cli.demo.lims_projects import make_rows
from labferry.lims.v1 import lims_service_pb2 as pb
from tests.integration.lims_gateway.running_lims import ROWS, Site
from tests.integration.secrets.running_service import refusal

pytestmark = pytest.mark.asyncio(loop_scope="session")

LOG_FULL = (grpc.StatusCode.RESOURCE_EXHAUSTED, "LOG_DISK_FULL")
# The log may have had room left in its own file; then the cache is the one that has none.
CACHE_FULL = (grpc.StatusCode.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE")
# Too many to fit into what the files leave free in themselves.
MORE = make_rows(1500)


@pytest_asyncio.fixture(loop_scope="session")
async def small_disk(site: Site) -> AsyncIterator[Path]:
    """The gateway's state folder on a disk of four megabytes, with the gateway running on it."""
    folder = site.lab.state_dir / "lims_gateway"
    await site.gateway.stop()
    kept = shutil.copytree(folder, site.lab.folder / "kept")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "labferry-test", str(folder)], check=True)
    try:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        folder.chmod(0o700)
        await site.restart_gateway(forget=False)
        yield folder
        await site.gateway.stop()
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        shutil.rmtree(kept)


def fill(disk: Path) -> Path:
    """Takes the rest of the disk."""
    ballast = disk / "ballast"
    with open(ballast, "wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return ballast


async def test_news_that_cant_be_written_down_havent_happened(site: Site, small_disk: Path) -> None:
    stub = await site.gateway.lims()
    before = await stub.ListProjects(pb.ListProjectsRequest(refresh=True))
    told = len(await site.gateway.events())
    ballast = await asyncio.to_thread(fill, small_disk)
    await site.lims.serve(MORE)

    for _ in range(3):
        assert await refusal(stub.RefreshProjects(pb.RefreshProjectsRequest())) in (LOG_FULL, CACHE_FULL)
        answer = await stub.ListProjects(pb.ListProjectsRequest(refresh=True))
        assert (answer.source, answer.stale) == (pb.SOURCE_CACHE, True)
        assert "full" in answer.upstream_failure
        assert (list(answer.projects), answer.freshness_time) == (list(before.projects), before.freshness_time)
    fresh = await stub.GetProject(pb.GetProjectRequest(id=ROWS[0]["uid"]))
    assert (fresh.source, fresh.stale, fresh.project.name) == (pb.SOURCE_CACHE, False, ROWS[0]["name"])
    assert (await stub.CheckHealth(pb.CheckHealthRequest())).ok
    assert told <= len(await site.gateway.events())

    ballast.unlink()
    live = await stub.ListProjects(pb.ListProjectsRequest(refresh=True))
    assert (live.source, live.stale) == (pb.SOURCE_LIVE, False)
    added = await stub.GetProject(pb.GetProjectRequest(id=MORE[-1]["uid"]))
    assert (added.source, added.project.name) == (pb.SOURCE_CACHE, MORE[-1]["name"])
    streams = [e.stream for e in await site.gateway.events() if e.type.startswith("lims.project.")]
    assert len(set(streams)) == len(MORE)
    assert streams.count(streams[-1]) == 1


async def test_an_empty_cache_and_a_full_disk_say_which_disk(site: Site, small_disk: Path) -> None:
    await site.lims.serve(MORE)
    stub = await site.restart_gateway()
    ballast = await asyncio.to_thread(fill, small_disk)
    assert await refusal(stub.ListProjects(pb.ListProjectsRequest())) == LOG_FULL
    ballast.unlink()
    assert (await stub.ListProjects(pb.ListProjectsRequest())).source == pb.SOURCE_LIVE
