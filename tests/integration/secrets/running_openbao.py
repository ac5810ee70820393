"""The stand-in of OpenBao as a process of its own, that can be sealed, killed and started again on the same port."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.integration.secrets.openbao_server import MOUNT
from tests.integration.secrets.running_service import Lab

PREFIX = "labferry/exlab-wizard"


@dataclass
class OpenBao:
    folder: Path
    port: int = 0
    tls: Path | None = None
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        module = "tests.integration.secrets.openbao_server"
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module, str(self.folder / "openbao.json"), str(self.port)),
            *([] if self.tls is None else [str(self.tls)]),
            stdout=asyncio.subprocess.PIPE,
        )
        assert self.process.stdout is not None
        async with asyncio.timeout(60):
            self.port = int(await self.process.stdout.readline())

    async def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    @property
    def address(self) -> str:
        return f"{'http' if self.tls is None else 'https'}://127.0.0.1:{self.port}"

    async def told(self, **what: Any) -> dict[str, Any]:
        """Plays the operator of the server; returns what it holds then."""
        # Its certificate is what tests are about; this client only steers it.
        async with httpx.AsyncClient(trust_env=False, verify=False) as client:
            answer = await client.post(f"{self.address}/test", json=what)
            held: dict[str, Any] = answer.json()
            return held

    async def values(self) -> dict[str, str]:
        """Path → the newest value."""
        versions = (await self.told())["versions"]
        return {path: json.loads(found[-1])["value"] for path, found in versions.items() if found[-1]}

    def configure(self, lab: Lab, **login: Any) -> None:
        token = lab.folder / "openbao.token"
        token.write_text("first-token\n")
        lab.settings["secrets"] = {
            "backend": "openbao",
            "openbao": {
                "address": self.address,
                "mount": MOUNT,
                "timeout_seconds": 5,
                "login": login or {"method": "token_file", "token_file": str(token)},
            },
        }


@asynccontextmanager
async def running_openbao(folder: Path, tls: Path | None = None) -> AsyncIterator[OpenBao]:
    """`tls`: the folder of the certificate that it shows."""
    server = OpenBao(folder, tls=tls)
    await server.start()
    try:
        yield server
    finally:
        if server.process is not None and server.process.returncode is None:
            await server.kill()
