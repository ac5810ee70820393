"""labferry log export, backup, restore: copies of a service's event log, and a new log made from one."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import time
from collections.abc import AsyncIterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from cli import event_payloads  # noqa: F401 -- they say which blobs an event names
from cli.connection import chosen_configuration
from cli.failure import EXIT_NO, run_command
from cli.options import ConfigOption, LogOption, TokenOption, connect
from cli.output import console, note, size
from labferry.events.v1 import event_log_service_pb2 as pb
from labferry.events.v1.event_log_service_pb2_grpc import EventLogServiceStub
from libs.event_log.backup_reading import BackupError
from libs.event_log.open_store import begin_new_log
from libs.event_log.restore import Restore, RestoredLog
from libs.event_log.store import EventStoreError
from libs.service_kit.config import load_configuration
from libs.service_kit.identity import ServiceName
from libs.service_kit.version import LABFERRY_VERSION

ReasonOption = Annotated[str, typer.Option(help="Why; kept with the record that a copy was given.")]
_SUM = re.compile(r"([0-9a-f]{64})\b.*", re.DOTALL)


class CopyError(Exception):
    """A copy can't be had or written; the message says why."""


def export(
    file: Annotated[Path, typer.Argument(help="Where to write it; never replaces a file.", show_default=False)],
    from_position: Annotated[int, typer.Option("--from", min=0, help="First position; 0: the beginning.")] = 0,
    to_position: Annotated[int, typer.Option("--to", min=0, help="Last position; 0: the head.")] = 0,
    reason: ReasonOption = "",
    log: LogOption = ServiceName.SYNC_ENGINE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """Write events as JSON Lines, for an auditor; FILE.sha256 says what the file must be."""

    async def work() -> int:
        request = pb.ExportEventsRequest(from_position=from_position, to_position=to_position, reason=reason)
        async with connect(config, token_file).channel(log) as channel:
            return await _keep(EventLogServiceStub(channel).ExportEvents(request), file)

    run_command(work())


def backup(
    file: Annotated[Path, typer.Argument(help="Where to write it; never replaces a file.", show_default=False)],
    reason: ReasonOption = "",
    log: LogOption = ServiceName.SYNC_ENGINE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """Write a backup of a running service's log, with its blobs; FILE.sha256 says what the file must be."""

    async def work() -> int:
        async with connect(config, token_file).channel(log) as channel:
            return await _keep(EventLogServiceStub(channel).BackUp(pb.BackUpRequest(reason=reason)), file)

    run_command(work())


def restore(
    file: Annotated[Path, typer.Argument(help="The backup.", exists=True, dir_okay=False, show_default=False)],
    service: Annotated[ServiceName, typer.Option(help="Whose log it is. The service must be stopped, without a log.")],
    sha256: Annotated[str, typer.Option(help="What the file must be; by default as FILE.sha256 says.")] = "",
    config: ConfigOption = None,
) -> None:
    """Make a new log from a backup, for a service that is stopped and has none. Exit status 1 when it can't be done."""

    async def work() -> int:
        settings = load_configuration(chosen_configuration(config)).settings
        state_dir, url = settings.state_dir / service, settings.event_log.url

        def run() -> RestoredLog:
            wanted = sha256 or _sum_beside(file)
            return Restore(service, LABFERRY_VERSION, time.time_ns()).run(
                file,
                wanted,
                state_dir,
                lambda work_folder: begin_new_log(url, service, state_dir, work_folder),
                settings.blobs_of(service),
            )

        try:
            restored = await asyncio.to_thread(run)
        except (BackupError, CopyError, EventStoreError, OSError) as error:
            note(f"nothing was restored: {error}")
            return EXIT_NO
        old = restored.manifest
        console.print(f"restored: {old.head_position} events of the log {old.store_id}, head {old.head_hash}")
        console.print(f"the new log is {restored.store_id}, head {restored.head_hash.hex()}")
        return 0

    run_command(work())


async def _keep(pieces: AsyncIterable[pb.FilePiece], file: Path) -> int:
    """Writes a streamed file, whole and proven, or not at all."""
    part = file.with_name(file.name + ".part")
    try:
        end = await _write(pieces, part, file)
    except (CopyError, OSError) as error:
        note(str(error))
        return EXIT_NO
    finally:
        with suppress(FileNotFoundError):
            part.unlink()
    console.print(f"{file}: {size(end.size)}, SHA-256 {end.sha256}", markup=False, soft_wrap=True)
    return 0


async def _write(pieces: AsyncIterable[pb.FilePiece], part: Path, file: Path) -> pb.FileEnd:
    digest, end = hashlib.sha256(), None
    with _open_part(part, file) as output:
        async for piece in pieces:
            if piece.WhichOneof("content") == "end":
                end = piece.end
            else:
                digest.update(piece.data)
                await asyncio.to_thread(output.write, piece.data)
        output.flush()
        os.fsync(output.fileno())
    if end is None or end.sha256 != digest.hexdigest():
        raise CopyError("the stream was cut off or changed on its way; nothing was kept")
    sums = file.with_name(file.name + ".sha256")
    sums.write_text(f"{end.sha256}  {file.name}\n", encoding="utf-8")
    os.link(part, file)
    return end


def _open_part(part: Path, file: Path) -> BinaryIO:
    if os.path.lexists(file):
        raise CopyError(f"{file} exists; it is not replaced")
    # It holds everything that the log does, so it is the owner's alone.
    return os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb")


def _sum_beside(file: Path) -> str:
    beside = file.with_name(file.name + ".sha256")
    if not beside.exists():
        raise CopyError(f"what the file must be isn't known: {beside} isn't there, and --sha256 not given")
    found = _SUM.fullmatch(beside.read_text(encoding="utf-8", errors="replace"))
    if found is None:
        raise CopyError(f"{beside} begins with no SHA-256")
    return found[1]
