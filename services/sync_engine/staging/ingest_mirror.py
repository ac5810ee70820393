"""Brings what the log says of a staged run into its `ingest.json`, always after the event (SPEC §8, FORMATS §6)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from libs.run_tree.beneath import is_folder_beneath
from libs.run_tree.creation_errors import CreationError
from libs.run_tree.creation_json import creation_path, read_creation
from libs.run_tree.ingest_record import IngestHead, IngestStep, StagingState, ingest_path, mirror_steps
from libs.run_tree.json_value import JsonValue
from libs.run_tree.manifest import MANIFEST_PATH
from libs.run_tree.record_file import RecordError
from libs.service_kit.telemetry import Logger
from libs.service_kit.work_threads import WorkThreads
from services.sync_engine.staging.staged_run import StagedRun

_LOCK_SECONDS = 5.0
_MOST_REMEMBERED = 10_000


class IngestMirror:
    """Remembers what it wrote, so that a look at a run whose file is in step costs nothing."""

    def __init__(self, threads: WorkThreads, logger: Logger) -> None:
        self._threads = threads
        self._logger = logger
        self._in_step: dict[str, StagingState] = {}

    def is_in_step(self, run: str, state: StagingState) -> bool:
        """Whether the file is known to name this state."""
        return self._in_step.get(run) is state

    async def bring_in_step(self, record: StagedRun, folder: Path) -> str:
        """What keeps the file from being written, one sentence; empty: it is in step, or there is no cache folder to
        hold it."""
        if record.state is None or self.is_in_step(record.run, record.state):
            return ""
        try:
            reached = await self._threads.run(partial(_mirror, record, folder))
        except RecordError as error:
            return error.message
        if reached is None:
            return ""
        if reached is not record.state:
            self._logger.warning("ingest_file_ahead", run=record.run, in_file=reached.value, in_log=record.state.value)
        if len(self._in_step) >= _MOST_REMEMBERED:
            self._in_step.clear()
        self._in_step[record.run] = record.state
        return ""


def _mirror(record: StagedRun, folder: Path) -> StagingState | None:
    path = ingest_path(folder)
    if not is_folder_beneath(path.parent):
        return None
    head = IngestHead(_project_name(folder, record), record.equipment_id, record.run_kind, record.run)
    steps = [IngestStep(step.state, step.at, step.host, _details(record, step.state)) for step in record.steps]
    return mirror_steps(path, head, steps, _LOCK_SECONDS)


def _project_name(folder: Path, record: StagedRun) -> str:
    """The project as it was called when the run was made, else its short id, else its folder's name."""
    try:
        creation = read_creation(creation_path(folder))
    except CreationError:
        return record.project
    return creation.lims_project_name or creation.lims_short_id or record.project


def _details(record: StagedRun, state: StagingState) -> dict[str, JsonValue]:
    match state:
        case StagingState.COMPLETE:
            return {"files_received": record.file_count, "bytes_received": record.byte_count}
        case StagingState.SYNC_VERIFIED:
            return {"nas_path": record.nas_path, "checksum_file": MANIFEST_PATH.decode()}
        case _:
            return {}
