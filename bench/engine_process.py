"""A sync engine as a process of its own, on a state folder that the benchmark prepares."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from libs.service_kit.channel import read_token
from libs.service_kit.identity import OPERATOR_TOKEN_FILE

_EQUIPMENT = 8


@dataclass(frozen=True, slots=True)
class RunningEngine:
    """Where it is reached, with which metadata its operator calls, and its process."""

    address: str
    authorization: tuple[tuple[str, str], ...]
    pid: int


@dataclass(frozen=True, slots=True)
class EngineFolder:
    """The state, the lab and the storage of one engine. Under the checkout, because a temporary folder may lie in
    memory, where fsync costs nothing."""

    folder: Path

    @property
    def log(self) -> Path:
        return self.folder / "state" / "sync_engine" / "events.sqlite3"

    def prepare(self, **settings: object) -> None:
        """An empty state, and a configuration with the equipment that `write_large_log` names, and `settings`."""
        self.remove()
        self.log.parent.mkdir(parents=True, mode=0o700)
        configuration = {
            "state_dir": str(self.folder / "state"),
            "listen": dict.fromkeys(("secrets", "lims_gateway", "sync_engine"), "127.0.0.1:0"),
            "equipment": self._equipment(),
            **settings,
        }
        (self.folder / "labferry.yaml").write_text(yaml.safe_dump(configuration), encoding="utf-8")

    def forget(self) -> None:
        """The state is as before the first start; the lab's folders stay."""
        shutil.rmtree(self.folder / "state", ignore_errors=True)
        self.log.parent.mkdir(parents=True, mode=0o700)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _equipment(self) -> Sequence[dict[str, object]]:
        entries: list[dict[str, object]] = []
        for number in range(_EQUIPMENT):
            name, nas = f"CONFOCAL_{number:02}", self.folder / "nas" / str(number)
            (self.folder / "lab" / name).mkdir(parents=True)
            nas.mkdir(parents=True)
            transport = {"type": "mounted", "path": str(nas)}
            entries.append({"id": name, "local_root": str(self.folder / "lab"), "transport": transport})
        return entries

    @asynccontextmanager
    async def running(self) -> AsyncIterator[RunningEngine]:
        """Entered as soon as the engine says that it serves."""
        announced, announce_to = os.pipe()
        log = os.open(self.folder / "engine.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.sync_engine", "--config", str(self.folder / "labferry.yaml")),
            *("--announce-to", str(announce_to)),
            stderr=log,
            pass_fds=(announce_to,),
        )
        os.close(announce_to)
        os.close(log)
        try:
            address = await asyncio.to_thread(_line_from, announced)
            if not address:
                raise RuntimeError(f"the engine didn't start; {self.folder / 'engine.log'} says why")
            token = read_token(self.folder / "state" / OPERATOR_TOKEN_FILE)
            yield RunningEngine(address, (("authorization", f"Bearer {token}"),), process.pid)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


def _line_from(descriptor: int) -> str:
    with open(descriptor, encoding="ascii") as announcement:
        return announcement.readline().strip()
