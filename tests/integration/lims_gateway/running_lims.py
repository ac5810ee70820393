"""The demo's LIMS server in a process of its own, and a gateway that reads from it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from cli.demo.lims_projects import make_rows
from labferry.secrets.v1 import secrets_service_pb2 as secrets_pb
from tests.integration.secrets.running_service import START_SECONDS, Lab, RunningService, new_lab, running

EMAIL = "ops@lab.example"
PASSWORD = "lims-password-of-the-tests"


@dataclass(frozen=True)
class RunningLims:
    address: str
    process: asyncio.subprocess.Process
    control: httpx.AsyncClient

    async def behave(self, mode: str) -> None:
        (await self.control.post("/_control/mode", json={"mode": mode})).raise_for_status()

    async def serve(self, rows: Sequence[Any]) -> None:
        (await self.control.post("/_control/projects", json={"projects": list(rows)})).raise_for_status()

    async def requests(self) -> list[tuple[str, str]]:
        """(method, path) of every request that the LIMS got, oldest first."""
        answer = (await self.control.get("/_control/requests")).json()
        return [(r["method"], r["path"]) for r in answer["requests"]]

    async def logins(self) -> int:
        return (await self.requests()).count(("POST", "/api/v1/login"))

    async def stop(self) -> None:
        if self.process.returncode is None:
            self.process.terminate()
            await self.process.wait()


@asynccontextmanager
async def running_lims(lab: Lab, projects: int = 12) -> AsyncIterator[RunningLims]:
    password_file = lab.folder / "lims-password"
    password_file.write_text(PASSWORD)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli.demo.lims_server", "--email", EMAIL),
        *("--password-file", str(password_file), "--projects", str(projects)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(START_SECONDS):
        line = (await process.stdout.readline()).decode()
    password_file.unlink()
    address = line.removeprefix("listening on ").strip()
    assert address.startswith("http://127.0.0.1:"), line
    async with httpx.AsyncClient(base_url=address, trust_env=False) as control:
        lims = RunningLims(address, process, control)
        try:
            yield lims
        finally:
            await lims.stop()


@dataclass(frozen=True)
class Site:
    """A LIMS, the secrets service that keeps its password, and the gateway."""

    lab: Lab
    lims: RunningLims
    secrets: RunningService
    gateway: RunningService

    async def store_password(self, password: str = PASSWORD) -> None:
        stub = await self.secrets.secrets()
        await stub.SetSecret(secrets_pb.SetSecretRequest(username="lims", value=password))


@asynccontextmanager
async def running_site(*, endpoint_suffix: str = "/api/v1", **lims_settings: Any) -> AsyncIterator[Site]:
    async with new_lab() as lab, running_lims(lab) as lims:
        lab.write_passphrase()
        lab.settings["lims"] = {"endpoint": lims.address + endpoint_suffix, "email": EMAIL, **lims_settings}
        async with running(lab, "secrets") as secrets, running(lab, "lims_gateway") as gateway:
            site = Site(lab, lims, secrets, gateway)
            await site.store_password()
            yield site


ROWS = make_rows(12)
