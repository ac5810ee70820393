"""labferry run export: a proven run as a BagIt bag with RO-Crate metadata, every file checked while it is copied."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shlex
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, Annotated, TypeVar

import grpc
import typer

from cli.connection import Connection
from cli.failure import EXIT_NO, run_command
from cli.options import ConfigOption, RunArgument, TokenOption, connect
from cli.output import console, note, size, visible
from cli.ro_crate import FILE_NAME, CrateFile, CrateSubject, ro_crate, told_origins
from labferry.events.v1 import event_log_service_pb2, event_log_service_pb2_grpc, event_pb2
from labferry.sync.v1 import sync_service_pb2, sync_service_pb2_grpc
from libs.run_tree.bag import BagError, BagWriter, misread_by_python_bagit
from libs.run_tree.manifest import MANIFEST_PATH, ManifestEntry, read_manifest
from libs.run_tree.receipt import Receipt, read_receipt, receipt_file_name
from libs.run_tree.run_path import RunPath
from libs.run_tree.unlisted import Unlisted, find_unlisted
from libs.service_kit.equipment_settings import DestinationSettings, MountedTransportSettings
from libs.service_kit.identity import ServiceName
from libs.service_kit.version import LABFERRY_VERSION

T = TypeVar("T")
_MOST_NAMED = 5
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class _Exported:
    """`origins` counts files by the name of their place. `lacking` are names that the mounted copy didn't hold as they
    were verified, and `strange` those that the `bagit` package doesn't read."""

    held: int
    origins: Mapping[str, int]
    lacking: Sequence[str]
    strange: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the run's files may lie. `is_the_copy`: it is the destination's own, and was to hold them."""

    name: str
    folder: Path
    is_the_copy: bool = False


def export(
    run: RunArgument,
    to: Annotated[Path, typer.Option(help="Folder of the new bag; it must not exist.", show_default=False)],
    destination: Annotated[str, typer.Option(help="Whose copy; the first with a receipt by default.")] = "",
    fetched: Annotated[
        Path | None,
        typer.Option(
            "--from",
            exists=True,
            file_okay=False,
            help="A folder with the run's files, fetched from a remote destination.",
        ),
    ] = None,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """Make a BagIt bag of a proven run, from its mounted copy or the local folder. Exit status 1 when it can't be."""
    if not to.absolute().parent.is_dir():
        raise typer.BadParameter(f"{to.absolute().parent} is no folder", param_hint="--to")

    async def work() -> int:
        connection = connect(config, token_file)
        _refuse_data_folders(connection, to)
        async with connection.channel(ServiceName.SYNC_ENGINE) as channel:
            stub = sync_service_pb2_grpc.SyncServiceStub(channel)
            wanted = sync_service_pb2.GetReceiptRequest(run=run, destination=destination or None)
            content = (await stub.GetReceipt(wanted)).content
            receipt = read_receipt(content).receipt
            with tempfile.TemporaryFile() as manifest:
                wanted_manifest = sync_service_pb2.GetManifestRequest(run=run, destination=receipt.destination)
                async for piece in stub.GetManifest(wanted_manifest):
                    manifest.write(piece.content)
                streams = [f"run-{run}", *[f"job-{job_id}" for job_id in await _jobs(stub, receipt.job_id)]]
                events = [e for s in streams for e in await _events(channel, s)]
                given = [_Place("the given folder", fetched)] if fetched is not None else []
                places = [*given, *_places(connection, receipt)]
                bag = _Bag(to, receipt, content, manifest, events, places)
                try:
                    done = await until_done(bag.fill)
                except (BagError, OSError) as error:
                    note(f"nothing was exported: {visible(str(error))}")
                    _say_where_it_lies(connection, receipt)
                    return EXIT_NO
        _say_what_the_copy_lacks(done.lacking, receipt)
        _say_what_is_strange(done.strange)
        told = f"{sum(done.origins.values())} files, {size(done.held)} ({told_origins(done.origins)})"
        console.print(f"{to}: {told}", markup=False)
        return 0

    run_command(work())


def _refuse_data_folders(connection: Connection, to: Path) -> None:
    """A bag among the runs, here or at a mounted destination, would be taken for a run's files."""
    staging_root = connection.settings.orchestrator.staging_folder
    roots = [] if staging_root is None else [staging_root]
    for equipment in connection.settings.equipment:
        roots.append(equipment.local_root / equipment.id)
        transports = [place.transport for place in equipment.all_destinations()]
        roots += [transport.path for transport in transports if isinstance(transport, MountedTransportSettings)]
    real = Path(os.path.realpath(to))
    for root in roots:
        if real.is_relative_to(os.path.realpath(root)):
            raise typer.BadParameter(f"{to} lies in {root}, among the runs", param_hint="--to")


async def until_done(work: Callable[[Callable[[], bool]], T]) -> T:
    """What the blocking `work` gives. It gets a question to ask: whether it is to stop, because nobody waits for it."""
    stopped = threading.Event()
    try:
        return await asyncio.to_thread(work, stopped.is_set)
    finally:
        stopped.set()


async def _jobs(stub: sync_service_pb2_grpc.SyncServiceAsyncStub, job_id: str) -> Sequence[str]:
    """The job that the receipt names, and those that it amends."""
    found = []
    while job_id:
        found.append(job_id)
        job_id = (await stub.GetJob(sync_service_pb2.GetJobRequest(job_id=job_id))).amends_job_id
    return found


async def _events(channel: grpc.aio.Channel, stream: str) -> Sequence[event_pb2.Event]:
    request = event_log_service_pb2.ReadEventsRequest(from_position=1, stream=stream)
    batches = event_log_service_pb2_grpc.EventLogServiceStub(channel).ReadEvents(request)
    return [event async for batch in batches for event in batch.events]


def _places(connection: Connection, receipt: Receipt) -> Sequence[_Place]:
    """Where the run's files may lie on this machine: the mounted copy first."""
    path = RunPath.parse(receipt.run)
    places = []
    for equipment in connection.settings.equipment:
        if equipment.id == receipt.equipment_id:
            place = _destination(connection, receipt)
            if place is not None and isinstance(place.transport, MountedTransportSettings):
                places.append(_Place(place.name, place.transport.path / path.below_equipment, is_the_copy=True))
            places.append(_Place("the local folder", equipment.local_root / str(path)))
            staging_root = connection.settings.orchestrator.staging_folder
            if staging_root is not None:
                places.append(_Place("the staging folder", staging_root / str(path)))
    return places


def _destination(connection: Connection, receipt: Receipt) -> DestinationSettings | None:
    places = (p for e in connection.settings.equipment if e.id == receipt.equipment_id for p in e.all_destinations())
    return next((place for place in places if place.name == receipt.destination), None)


def _say_where_it_lies(connection: Connection, receipt: Receipt) -> None:
    place = _destination(connection, receipt)
    below = RunPath.parse(receipt.run).below_equipment
    if place is None:
        note(
            f"  {receipt.destination} of {receipt.equipment_id} is not configured here any more: fetch"
            f" {visible(str(below))} from where it was into a folder, and name that with --from; every file is checked"
        )
    elif not isinstance(place.transport, MountedTransportSettings):
        note(
            f"  the copy at {place.name} lies behind {place.transport.type}, which this command doesn't read: fetch"
            f" {visible(str(below))} from there into a folder, and name that with --from; every file is checked"
        )


def _say_what_the_copy_lacks(names: Sequence[str], receipt: Receipt) -> None:
    if names:
        note(
            f"{_first(names)}: the copy at {receipt.destination} doesn't hold this as it was verified, another place"
            f" does; labferry run verify {shlex.quote(visible(receipt.run))} looks at all of that copy"
        )


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(visible(name) for name in names[:_MOST_NAMED]) + more


def _say_what_is_strange(names: Sequence[str]) -> None:
    if names:
        note(
            f"{_first(names)}: listed as RFC 8493 says, which Python's bagit package reads otherwise: it will call this"
            " bag invalid"
        )


def _sha256(content: IO[bytes]) -> str:
    content.seek(0)
    digest = hashlib.sha256()
    for piece in iter(partial(content.read, _PIECE), b""):
        digest.update(piece)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class _Bag:
    """All that a bag is made of."""

    to: Path
    receipt: Receipt
    content: bytes
    manifest: IO[bytes]
    events: Sequence[event_pb2.Event]
    places: Sequence[_Place]

    def fill(self, stopped: Callable[[], bool]) -> _Exported:
        """Makes the bag. Blocking; BagError, OSError."""
        receipt, manifest = self.receipt, self.manifest
        if _sha256(manifest) != receipt.manifest_sha256:
            raise BagError(
                f"the receipt of {receipt.destination} tells of other files than were proven there since: the run is to"
                f" be sealed there first; labferry why {shlex.quote(receipt.run)} says what keeps it"
            )
        folders = [place.folder for place in self.places]
        held = 0
        origins: Counter[str] = Counter()
        lacking: list[str] = []
        with BagWriter(self.to, stopped) as bag:

            def files() -> Iterator[CrateFile]:
                for entry in self._entries():
                    yield CrateFile(entry.path.decode(), bag.size(entry.path), entry.sha256)

            for entry in self._entries():
                file = bag.copy(entry.path, entry.sha256, folders)
                number = folders.index(file.source)
                held += file.size
                origins[self.places[number].name] += 1
                if any(place.is_the_copy for place in self.places[:number]):
                    lacking.append(entry.path.decode())
            manifest.seek(0)
            bag.write(MANIFEST_PATH.decode(), iter(partial(manifest.read, _PIECE), b""))
            beside = self._beside()
            description = [
                *(("manifest_sha256", receipt.manifest_sha256), ("log_id", receipt.log_id), ("job_id", receipt.job_id)),
                *(("symbolic_link", f"{path} -> {target}") for path, target in beside.symlinks.items()),
                *(("empty_folder", path) for path in beside.empty_folders),
            ]
            about = CrateSubject(receipt.run, receipt.destination, origins, datetime.now(UTC))
            in_order = sorted(self.events, key=lambda event: event.position)
            bag.write(FILE_NAME, ro_crate(about, files, in_order, description))
            info = {
                "Source-Organization": receipt.equipment_id,
                "External-Identifier": receipt.run,
                "Bagging-Date": f"{datetime.now(UTC):%Y-%m-%d}",
                "Bag-Software-Agent": f"labferry {LABFERRY_VERSION}",
            }
            bag.close(info, {**beside.records, receipt_file_name(receipt.destination): self.content})
        strange = misread_by_python_bagit(lambda: (entry.path.decode() for entry in self._entries()))
        return _Exported(held, origins, lacking, strange)

    def _entries(self) -> Iterator[ManifestEntry]:
        self.manifest.seek(0)
        return read_manifest(self.manifest)

    def _beside(self) -> Unlisted:
        """Of the first place that is there."""
        place = next((place.folder for place in self.places if place.folder.is_dir()), None)
        return Unlisted({}, (), {}) if place is None else find_unlisted(Path(os.path.realpath(place)))
