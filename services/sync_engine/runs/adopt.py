"""Gives a foreign folder the layout of a run and a creation.json: by copying and proving, never by moving."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from labferry.events.v1 import run_events_pb2 as events
from libs.event_log.store import Expected, RequestKey
from libs.run_tree.atomic_file import sync_open_folder
from libs.run_tree.beneath import (
    folder_beneath,
    is_taken_beneath,
    make_folder_beneath,
    names_beneath,
    remove_tree_beneath,
)
from libs.run_tree.creation_errors import CreationError
from libs.run_tree.creation_json import creation_path, write_first_creation
from libs.run_tree.equipment_record import EquipmentRecord, note_equipment
from libs.run_tree.find_runs import find_projects
from libs.run_tree.group_record import GroupRecord, write_first_group_record
from libs.run_tree.libc import rename_noreplace
from libs.run_tree.new_run import new_run_record
from libs.run_tree.record_file import RecordError
from libs.run_tree.run_path import RunKind, RunPath, run_leaf
from libs.service_kit.equipment_settings import EquipmentSettings
from libs.service_kit.errors import LabferryError
from libs.service_kit.telemetry import Logger
from services.sync_engine.engine_log import Cause, Change, EngineLog
from services.sync_engine.errors import RunExistsError, SourceUnreadableError
from services.sync_engine.event_types import EVENT_TYPES, run_stream
from services.sync_engine.runs.location import RunLocator
from services.sync_engine.runs.run_kinds import RUN_KINDS
from services.sync_engine.transfer.mounted import MountedTransport
from services.sync_engine.transfer.source_tree import difference, scan_run
from services.sync_engine.transfer.transfer_control import StopReason, TransferControl
from services.sync_engine.transfer.transport import (
    CopiedFile,
    EntryKind,
    FailureKind,
    ProgressPhase,
    SourceEntry,
    TransferError,
)

_ADOPTED = EVENT_TYPES.of_class(events.RunAdopted).name
ADOPTING_PREFIX = ".labferry-adopting-"


@dataclass(frozen=True, slots=True)
class Adoption:
    """What is to be adopted as what. `started` None: the oldest file's modification time."""

    source_folder: str
    equipment_id: str
    project: str
    kind: RunKind
    started: datetime | None
    operator: str


class _NoProgress:
    def begin(self, phase: ProgressPhase, files_total: int, bytes_total: int) -> None:
        """Nobody watches an adoption."""

    def advance(self, files: int, nbytes: int, current: bytes) -> None:
        """Nobody watches an adoption."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A whole copy beside its final name, proven, with its creation.json."""

    run: RunPath
    file_count: int
    byte_count: int


class AdoptRun:
    """The command. The run appears whole, under its final name, in one rename after its event."""

    def __init__(self, log: EngineLog, locator: RunLocator, clock: Callable[[], datetime], logger: Logger) -> None:
        self._log = log
        self._locator = locator
        self._clock = clock
        self._logger = logger

    async def adopt(self, adoption: Adoption, cause: Cause, request: RequestKey | None) -> str:
        """The run's path. RunExistsError, SourceUnreadableError, PathOutsideRootsError, and the log's errors."""
        if request is not None:
            earlier = await self._log.store.find_request(request)
            if earlier is not None:
                run = events.RunAdopted.FromString(earlier.events[0].payload).run
                await asyncio.to_thread(self._finish, RunPath.parse(run))
                return run
        equipment = self._locator.equipment(adoption.equipment_id)
        source = await asyncio.to_thread(self._locator.resolve_source, adoption.source_folder)
        control = TransferControl()
        preparing = asyncio.create_task(asyncio.to_thread(self._prepare, adoption, equipment, source, control))
        try:
            prepared = await asyncio.shield(preparing)
        except asyncio.CancelledError:
            control.stop(StopReason.CANCELLED)
            await asyncio.wait([preparing])
            raise
        # From the event on the run is adopted: the rename follows whatever becomes of the caller.
        return await asyncio.shield(asyncio.create_task(self._record(adoption, prepared, cause, request)))

    async def finish_interrupted(self) -> None:
        """After a crash: adoptions in the log get their final name, copies that never got so far are removed.

        What can't be finished now stays where it is, with a warning: it must not keep the engine from starting.
        """
        for equipment in self._locator.all_equipment:
            for run in await asyncio.to_thread(self._leftovers, equipment.id):
                try:
                    if await self._is_in_log(run) and await asyncio.to_thread(self._is_whole, run):
                        await asyncio.to_thread(self._finish, run)
                    else:
                        await asyncio.to_thread(self._discard, run)
                except (LabferryError, OSError) as error:
                    self._logger.warning("adoption_not_finished", run=str(run), problem=str(error))

    async def _is_in_log(self, run: RunPath) -> bool:
        adopted = self._log.store.read(stream=run_stream(str(run)), types=(_ADOPTED,), limit=1)
        return [page async for page in adopted] != []

    def _leftovers(self, equipment_id: str) -> list[RunPath]:
        """The runs that copies which adoptions left beside their final name were to become."""
        root = self._locator.equipment_folder(equipment_id).parent
        found = []
        for project in find_projects(root, equipment_id):
            for kind in RunKind:
                with suppress(OSError), names_beneath(root / equipment_id / project / kind.group) as names:
                    leaves = [n.name.removeprefix(ADOPTING_PREFIX) for n in names if n.name.startswith(ADOPTING_PREFIX)]
                    found += [RunPath(equipment_id, project, kind.group, leaf) for leaf in sorted(leaves)]
        return found

    def _places(self, run: RunPath) -> tuple[Path, Path]:
        """Where a run is staged, and its final place. Touches the disk."""
        final = self._locator.equipment_folder(run.equipment_id) / run.below_equipment
        return final.with_name(ADOPTING_PREFIX + run.leaf), final

    def _is_whole(self, run: RunPath) -> bool:
        return is_taken_beneath(creation_path(self._places(run)[0]))

    def _finish(self, run: RunPath) -> None:
        """Gives a staged run its final name. Does nothing when that was done already."""
        staged, final = self._places(run)
        try:
            if not is_taken_beneath(staged):
                return
            with folder_beneath(final.parent) as folder:
                rename_noreplace(folder, os.fsencode(staged.name), folder, os.fsencode(final.name))
                sync_open_folder(folder)
        except FileExistsError as error:
            raise RunExistsError(f"{final} appeared meanwhile; the copy stays at {staged}") from error
        except OSError as error:
            detail = f"the run is adopted, but its copy must stay at {staged} for now: {error.strerror}"
            raise SourceUnreadableError(detail, metadata={"path": str(staged), "detail": detail}) from error

    def _discard(self, run: RunPath) -> None:
        remove_tree_beneath(self._places(run)[0])

    def _prepare(
        self, adoption: Adoption, equipment: EquipmentSettings, source: Path, control: TransferControl
    ) -> _Prepared:
        try:
            return self._copy(adoption, equipment, source, control)
        except (TransferError, CreationError, OSError) as error:
            detail = str(error.strerror) if isinstance(error, OSError) else error.message
            metadata = {"path": adoption.source_folder, "detail": detail}
            raise SourceUnreadableError(f"{adoption.source_folder}: {detail}", metadata=metadata) from error

    def _copy(
        self, adoption: Adoption, equipment: EquipmentSettings, source: Path, control: TransferControl
    ) -> _Prepared:
        if is_taken_beneath(creation_path(source)):
            raise RunExistsError(f"{source} is a run already", metadata={"run": str(source)})
        entries = scan_run(source)
        started = adoption.started or _oldest(entries) or self._clock()
        run = RunPath(equipment.id, adoption.project, adoption.kind.group, run_leaf(adoption.kind, started))
        staged, final = self._places(run)
        if final == source:
            move = f"move the folder out of {run.group}/, to another place in its local_root, and adopt it from there"
            raise RunExistsError(f"{source} lies where its copy would: {move}", metadata={"run": str(run)})
        if is_taken_beneath(final):
            raise RunExistsError(f"there is a run {run} already", metadata={"run": str(run)})
        if final.is_relative_to(source):
            raise TransferError(FailureKind.CONFIGURATION, "the folder holds the place that its copy would get")
        if is_taken_beneath(staged):
            remove_tree_beneath(staged)
        root = self._locator.equipment_folder(equipment.id)
        make_folder_beneath(root)
        transport = MountedTransport(root, is_real=True)
        try:
            copied = _copy_proven(transport, source, entries, run, staged, control)
            record = new_run_record(
                created_at=self._clock(),
                created_by=adoption.operator,
                kind=adoption.kind,
                local_path=str(equipment.local_root / str(run)),
                nas_path=f"{equipment.nas_root}/{run}" if equipment.nas_root else "",
            )
            creation = creation_path(staged)
            make_folder_beneath(creation.parent, 0o755)
            write_first_creation(creation, record)
            self._note_folders_above(run, equipment, root)
        except BaseException:
            transport.sweep(_copy_id(run), keep_attempt=None, control=TransferControl())
            with suppress(OSError):
                remove_tree_beneath(staged)
            raise
        files = [f for f in copied if f.kind is EntryKind.FILE]
        return _Prepared(run, len(files), sum(f.size for f in files))

    def _note_folders_above(self, run: RunPath, equipment: EquipmentSettings, folder: Path) -> None:
        """Writes the cache files of the folders above the run, which may legally be absent: what is there and can't be
        used stays as it is."""
        group = GroupRecord(run.project, run.equipment_id, run.kind_by_leaf)
        known = EquipmentRecord(equipment.id, equipment.label, str(equipment.local_root), equipment.nas_root)
        for note in (
            lambda: write_first_group_record(folder / run.project / run.group, group, self._clock()),
            lambda: note_equipment(folder, known, self._clock()),
        ):
            try:
                note()
            except (RecordError, OSError) as error:
                self._logger.warning("cache_file_not_written", run=str(run), problem=str(error))

    async def _record(self, adoption: Adoption, prepared: _Prepared, cause: Cause, request: RequestKey | None) -> str:
        run = str(prepared.run)
        adopted = events.RunAdopted(
            run=run,
            equipment_id=adoption.equipment_id,
            project=adoption.project,
            run_kind=RUN_KINDS.to_proto(adoption.kind),
            source_folder=adoption.source_folder,
            file_count=prepared.file_count,
            byte_count=prepared.byte_count,
            operator=adoption.operator,
        )
        await self._log.append(cause, Change(run_stream(run), Expected.ANY, (adopted,)), request=request)
        await asyncio.to_thread(self._finish, prepared.run)
        return run


def _copy_proven(
    transport: MountedTransport,
    source: Path,
    entries: Sequence[SourceEntry],
    run: RunPath,
    staged: Path,
    control: TransferControl,
) -> Sequence[CopiedFile]:
    """Copies beside the final name and reads back. TransferError unless every file arrived and none changed."""
    target = PurePosixPath(run.project, run.group, staged.name)
    copied = transport.copy(
        source,
        entries,
        target=target,
        job_id=_copy_id(run),
        attempt=1,
        landed=(),
        before_landing=lambda batch: None,
        control=control,
        progress=_NoProgress(),
    )
    outcome = transport.verify(target, copied, control=control, progress=_NoProgress())
    if outcome.expected == 0:
        raise TransferError(FailureKind.NOTHING_TO_VERIFY, "the folder holds no file")
    if not outcome.proven or not difference(entries, scan_run(source)).is_empty:
        raise TransferError(FailureKind.SOURCE_CHANGED, "the folder changed while it was copied")
    transport.sweep(_copy_id(run), keep_attempt=None, control=control)
    return copied


def _copy_id(run: RunPath) -> str:
    return f"adopt-{run.leaf}"


def _oldest(entries: Sequence[SourceEntry]) -> datetime | None:
    times = [e.mtime_ns for e in entries if e.kind is EntryKind.FILE]
    return datetime.fromtimestamp(min(times) // 1_000_000_000, tz=UTC) if times else None
