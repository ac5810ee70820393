"""The catalogue file on a share: written after a refresh, read when nothing better answers (SPEC §6)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from libs.run_tree.atomic_file import read_plain_file, sync_folder
from libs.service_kit.telemetry import Logger
from libs.service_kit.work_threads import WorkThreads
from services.lims_gateway.projects.catalogue_format import (
    Catalogue,
    CatalogueUnusableError,
    decode_catalogue,
    encode_catalogue,
)
from services.lims_gateway.projects.project import ProjectRows

_SHARE_SECONDS = 30.0
_CLOSE_SECONDS = 5.0
_READABLE_BY_ALL = 0o644


class CatalogueFile:
    """One LIMS's catalogue. Nothing here ever raises for a share that fails: each failure is a warning in the log.

    `endpoint` is written as configured. A share that hangs holds up nobody: the work is left to its thread.
    """

    def __init__(
        self,
        path: Path,
        endpoint: str,
        produced_by: str,
        threads: WorkThreads,
        logger: Logger,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._path = path
        self._endpoint = endpoint
        self._produced_by = produced_by
        self._threads = threads
        self._logger = logger
        self._clock = clock
        self._writing: asyncio.Task[None] | None = None
        self._next: tuple[ProjectRows, int] | None = None

    def offer(self, rows: ProjectRows, fetched_ns: int) -> None:
        """Has the projects of a refresh written, without waiting for it. Of several that wait the newest is written."""
        self._next = rows, fetched_ns
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_offered(), name="catalogue")

    async def read(self) -> Catalogue | None:
        """None when there is none that may be used; the log says why."""
        try:
            async with asyncio.timeout(_SHARE_SECONDS):
                content = await self._threads.run(lambda: read_plain_file(self._path))
            return await asyncio.to_thread(decode_catalogue, content, self._endpoint)
        except TimeoutError:
            self._warn("catalogue_not_read", f"the share does not answer within {_SHARE_SECONDS:g} seconds")
        except FileNotFoundError:
            self._warn("catalogue_not_read", "it is missing")
        except OSError as error:
            self._warn("catalogue_not_read", f"it is unreadable: {error.strerror}")
        except CatalogueUnusableError as error:
            self._warn("catalogue_not_read", str(error))
        return None

    async def close(self) -> None:
        """Lets a write that is under way end, unless the share hangs: the next refresh writes it again."""
        if self._writing is not None:
            await asyncio.wait({self._writing}, timeout=_CLOSE_SECONDS)
            self._writing.cancel()
            await asyncio.wait({self._writing})

    async def _write_offered(self) -> None:
        while (offered := self._next) is not None:
            self._next = None
            try:
                async with asyncio.timeout(_SHARE_SECONDS):
                    await self._write(*offered)
            except TimeoutError:
                self._warn("catalogue_not_written", f"the share does not answer within {_SHARE_SECONDS:g} seconds")
            except OSError as error:
                self._warn("catalogue_not_written", str(error.strerror))

    async def _write(self, rows: ProjectRows, fetched_ns: int) -> None:
        produced = (self._endpoint, self._produced_by, self._clock(), fetched_ns, rows.projects)
        content = await asyncio.to_thread(encode_catalogue, *produced)
        await self._threads.run(lambda: _replace(self._path, content))

    def _warn(self, event: str, problem: str) -> None:
        self._logger.warning(event, path=str(self._path), problem=problem)


def _replace(path: Path, content: bytes) -> None:
    """Other workstations read it under another user. Folders are not made: a share that isn't mounted has none."""
    temporary, descriptor = _open_temporary(path)
    try:
        with open(descriptor, "wb", buffering=0) as file:
            remaining = memoryview(content)
            while remaining:
                remaining = remaining[file.write(remaining) or 0 :]
            os.fchmod(descriptor, _READABLE_BY_ALL)
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent)


def _open_temporary(path: Path) -> tuple[Path, int]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    temporary = path.with_name(f"{path.name}.tmp.{os.getpid()}")
    try:
        return temporary, os.open(temporary, flags, 0o600)
    except FileExistsError:
        # A container elsewhere may have our process id, and be writing that very file.
        temporary = temporary.with_name(f"{temporary.name}.{secrets.token_hex(8)}")
        return temporary, os.open(temporary, flags, 0o600)
