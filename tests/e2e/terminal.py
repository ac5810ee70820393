"""Somebody at a terminal of the workstation: real commands, and what they print."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration.sync_engine.running_engine import Site

BIN = Path(sys.executable).parent
NO, NOT_FOUND, INVALID, PRECONDITION, UNAVAILABLE = 1, 64 + 5, 64 + 3, 64 + 9, 64 + 14


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Operator:
    """Calls `labferry` with the site's configuration."""

    site: Site

    async def __call__(self, *arguments: str, given: str = "") -> Said:
        process = await asyncio.create_subprocess_exec(
            *(str(BIN / "labferry"), *arguments),
            env={**os.environ, "LABFERRY_CONFIG": str(self.site.lab.folder / "labferry.yaml"), "COLUMNS": "200"},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(60):
            out, err = await process.communicate(given.encode())
        assert b"Traceback" not in err, err.decode()
        return Said(process.returncode or 0, out.decode(), err.decode())
