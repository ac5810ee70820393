"""The demo's LIMS server in a process of its own, and a gateway that reads from it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from cli.demo.lims_projects import make_rows
from labferry.lims.v1 import lims_service_pb2 as lims_pb
from labferry.secrets.v1 import secrets_service_pb2 as secrets_pb
from tests.integration.secrets.running_service import START_SECONDS, Lab, RunningService, new_lab, running, start

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

    async def fetches(self) -> int:
        return (await self.requests()).count(("GET", "/api/v1/projects"))

    async def begin_anew(self) -> None:
        """As it was at its start, with nobody logged in and nothing remembered."""
        await self.behave("expire_sessions")
        await self.serve(ROWS)
        (await self.control.delete("/_control/requests")).raise_for_status()

    async def stop(self) -> None:
        if self.process.returncode is None:
            self.process.terminate()
            await self.process.wait()


@asynccontextmanager
async def running_lims(
    folder: Path, projects: int = 12, tls: Sequence[str] = (), password: str = PASSWORD
) -> AsyncIterator[RunningLims]:
    """`tls`: the options that make it speak TLS."""
    password_file = folder / "lims-password"
    password_file.write_text(password)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli.demo.lims_server", "--email", EMAIL),
        *("--password-file", str(password_file), "--projects", str(projects), *tls),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(START_SECONDS):
        line = (await process.stdout.readline()).decode()
    password_file.unlink()
    address = line.removeprefix("listening on ").strip()
    assert address.startswith(("http://127.0.0.1:", "https://127.0.0.1:")), line
    # Its certificate is what tests are about; this client only steers it.
    async with httpx.AsyncClient(base_url=address, trust_env=False, verify=False) as control:
        lims = RunningLims(address, process, control)
        try:
            yield lims
        finally:
            await lims.stop()


@dataclass
class Site:
    """A LIMS, the secrets service that keeps its password, and the gateway, which tests start anew as they like."""

    lab: Lab
    lims: RunningLims
    secrets: RunningService
    gateway: RunningService
    _log_seen: int = 0

    async def store_secret(self, username: str = "lims", value: str = PASSWORD) -> None:
        stub = await self.secrets.secrets()
        await stub.SetSecret(secrets_pb.SetSecretRequest(username=username, value=value))

    def gateway_log(self) -> str:
        """What the present gateway has logged."""
        return self.lab.log_text("lims_gateway")[self._log_seen :]

    async def restart_gateway(self, settings: Mapping[str, Any] | None = None, *, forget: bool = True) -> Any:
        """A stub of a new gateway. `settings` of the LIMS beside its address; `forget`: with an empty state folder."""
        await self._end_gateway()
        if forget:
            for path in (self.lab.state_dir / "lims_gateway").iterdir():
                if path.name.startswith(("projects.sqlite3", "events.sqlite3")):
                    path.unlink()
        self.lab.settings["lims"] = {**_settings_of(self.lims), **(settings or {})}
        self._log_seen = len(self.lab.log_text("lims_gateway"))
        self.gateway = await start(self.lab, "lims_gateway")
        return await self.gateway.lims()

    async def until_logged(self, text: str) -> None:
        """Lines are written at the end of a turn: an answer may be there a little earlier."""
        async with asyncio.timeout(60):
            while text not in self.gateway_log():
                await asyncio.sleep(0.02)

    async def begin_anew(self) -> None:
        """A LIMS that behaves, and a gateway that knows its projects and nothing else about it."""
        await self.lims.begin_anew()
        if self.gateway.process.returncode is not None or self.lab.settings["lims"] != _settings_of(self.lims):
            await self.restart_gateway()
        stub = await self.gateway.lims()
        await stub.RefreshProjects(lims_pb.RefreshProjectsRequest())
        await self.lims.begin_anew()

    async def _end_gateway(self) -> None:
        await self.gateway.resources.aclose()
        if self.gateway.process.returncode is None:
            await self.gateway.stop()

    async def close(self) -> None:
        await self._end_gateway()
        # A test may have started another one than the first.
        await self.secrets.resources.aclose()
        if self.secrets.process.returncode is None:
            await self.secrets.stop()


def _settings_of(lims: RunningLims) -> dict[str, Any]:
    return {"endpoint": f"{lims.address}/api/v1", "email": EMAIL}


@asynccontextmanager
async def running_site() -> AsyncIterator[Site]:
    async with new_lab() as lab, running_lims(lab.folder) as lims:
        lab.write_passphrase()
        lab.settings["lims"] = _settings_of(lims)
        async with running(lab, "secrets") as secrets:
            site = Site(lab, lims, secrets, await start(lab, "lims_gateway"))
            try:
                await site.store_secret()
                yield site
            finally:
                await site.close()


ROWS = make_rows(12)
