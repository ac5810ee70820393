"""A LIMS gateway with a full cache, as a process of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
import yaml

from libs.service_kit.channel import read_token
from libs.service_kit.identity import OPERATOR_TOKEN_FILE
from services.lims_gateway.projects.cache import ProjectCache
from services.lims_gateway.projects.project import Project, ProjectRows

ENDPOINT = "http://127.0.0.1:1"
"""Nobody listens there: what is measured must come from the cache."""


@dataclass(frozen=True, slots=True)
class RunningGateway:
    """Where it is reached, and with which metadata its operator calls."""

    address: str
    authorization: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class GatewayFolder:
    """The state of one gateway, under the checkout."""

    folder: Path

    @property
    def cache(self) -> Path:
        return self.folder / "state" / "lims_gateway" / "projects.sqlite3"

    async def prepare(self, projects: Sequence[Project]) -> None:
        """A state folder whose cache holds these projects, as fresh as can be."""
        self.remove()
        self.cache.parent.mkdir(parents=True, mode=0o700)
        configuration = {
            "state_dir": str(self.folder / "state"),
            "listen": dict.fromkeys(("secrets", "lims_gateway", "sync_engine"), "127.0.0.1:0"),
            "lims": {"endpoint": ENDPOINT, "email": "bench@lab.example"},
        }
        (self.folder / "labferry.yaml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
        cache = await ProjectCache.open(self.cache, structlog.get_logger())
        await cache.replace_all(ENDPOINT, ProjectRows(projects), time.time_ns())
        await cache.close()

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[RunningGateway]:
        """Entered as soon as the gateway says that it serves."""
        announced, announce_to = os.pipe()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.lims_gateway", "--config", str(self.folder / "labferry.yaml")),
            *("--announce-to", str(announce_to)),
            stderr=asyncio.subprocess.DEVNULL,
            pass_fds=(announce_to,),
        )
        os.close(announce_to)
        try:
            address = await asyncio.to_thread(_line_from, announced)
            if not address:
                raise RuntimeError("the gateway didn't start")
            token = read_token(self.folder / "state" / OPERATOR_TOKEN_FILE)
            yield RunningGateway(address, (("authorization", f"Bearer {token}"),))
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


def _line_from(descriptor: int) -> str:
    with open(descriptor, encoding="ascii") as announcement:
        return announcement.readline().strip()
