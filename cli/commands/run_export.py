"""labferry run export: a proven run as a BagIt bag with RO-Crate metadata, every file checked while it is copied."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Annotated

import grpc
import typer

from cli.connection import Connection
from cli.failure import EXIT_NO, run_command
from cli.options import ConfigOption, RunArgument, TokenOption, connect
from cli.output import console, note, size, visible
from cli.ro_crate import FILE_NAME, CrateFile, ro_crate
from labferry.events.v1 import event_log_service_pb2, event_log_service_pb2_grpc, event_pb2
from labferry.sync.v1 import sync_service_pb2, sync_service_pb2_grpc
from libs.run_tree.bag import BagError, BagWriter
from libs.run_tree.manifest import read_manifest
from libs.run_tree.receipt import Receipt, read_receipt, receipt_file_name
from libs.run_tree.run_path import RunPath
from libs.service_kit.equipment_settings import MountedTransportSettings
from libs.service_kit.identity import ServiceName
from libs.service_kit.version import LABFERRY_VERSION


def export(
    run: RunArgument,
    to: Annotated[Path, typer.Option(help="Folder of the new bag; it must not exist.", show_default=False)],
    destination: Annotated[str, typer.Option(help="Whose copy; the first with a receipt by default.")] = "",
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """Make a BagIt bag of a proven run, from its mounted copy or the local folder. Exit status 1 when it can't be."""

    async def work() -> int:
        connection = connect(config, token_file)
        async with connection.channel(ServiceName.SYNC_ENGINE) as channel:
            stub = sync_service_pb2_grpc.SyncServiceStub(channel)
            wanted = sync_service_pb2.GetReceiptRequest(run=run, destination=destination or None)
            content = (await stub.GetReceipt(wanted)).content
            receipt = read_receipt(content).receipt
            with tempfile.TemporaryFile() as manifest:
                wanted_manifest = sync_service_pb2.GetManifestRequest(run=run, destination=receipt.destination)
                async for piece in stub.GetManifest(wanted_manifest):
                    manifest.write(piece.content)
                events = [e for s in _streams(receipt) for e in await _events(channel, s)]
                try:
                    places = _places(connection, receipt)
                    files, held = await asyncio.to_thread(_fill, to, receipt, content, manifest, events, places)
                except (BagError, OSError) as error:
                    note(f"nothing was exported: {visible(str(error))}")
                    return EXIT_NO
        console.print(f"{to}: {files} files, {size(held)}, from {receipt.destination}", markup=False)
        return 0

    run_command(work())


def _streams(receipt: Receipt) -> Sequence[str]:
    return (f"run-{receipt.run}", f"job-{receipt.job_id}")


async def _events(channel: grpc.aio.Channel, stream: str) -> Sequence[event_pb2.Event]:
    request = event_log_service_pb2.ReadEventsRequest(from_position=1, stream=stream)
    batches = event_log_service_pb2_grpc.EventLogServiceStub(channel).ReadEvents(request)
    return [event async for batch in batches for event in batch.events]


def _places(connection: Connection, receipt: Receipt) -> Sequence[Path]:
    """Where the run's files may lie on this machine: the mounted copy first."""
    path = RunPath.parse(receipt.run)
    places = []
    for equipment in connection.settings.equipment:
        if equipment.id == receipt.equipment_id:
            for place in equipment.all_destinations():
                if place.name == receipt.destination and isinstance(place.transport, MountedTransportSettings):
                    places.append(place.transport.path / path.below_equipment)
            places.append(equipment.local_root / str(path))
            staging_root = connection.settings.orchestrator.staging_folder
            if staging_root is not None:
                places.append(staging_root / str(path))
    return places


def _fill(
    to: Path,
    receipt: Receipt,
    content: bytes,
    manifest: IO[bytes],
    events: Sequence[event_pb2.Event],
    places: Sequence[Path],
) -> tuple[int, int]:
    """Files and bytes of the run."""
    count = held = 0
    with BagWriter(to) as bag:

        def files() -> Iterator[CrateFile]:
            manifest.seek(0)
            for entry in read_manifest(manifest):
                yield CrateFile(entry.path.decode(), bag.size(entry.path), entry.sha256)

        manifest.seek(0)
        for entry in read_manifest(manifest):
            held += bag.copy(entry.path, entry.sha256, places)
            count += 1
        description = {"manifest_sha256": receipt.manifest_sha256, "log_id": receipt.log_id, "job_id": receipt.job_id}
        in_order = sorted(events, key=lambda event: event.position)
        bag.write(FILE_NAME, ro_crate(receipt.run, receipt.destination, files, in_order, description))
        info = {
            "Source-Organization": receipt.equipment_id,
            "External-Identifier": receipt.run,
            "Bagging-Date": f"{datetime.now(UTC):%Y-%m-%d}",
            "Bag-Software-Agent": f"labferry {LABFERRY_VERSION}",
        }
        bag.close(info, {receipt_file_name(receipt.destination): content})
    return count, held
