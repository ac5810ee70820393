"""Brings what the log says of a run into its `creation.json`, and what others wrote there into the log (SPEC §2)."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from pathlib import Path

from labferry.events.v1 import run_events_pb2 as events
from libs.run_tree.creation_json import creation_path, mutate_creation, read_creation
from libs.run_tree.creation_record import CreationRecord
from libs.run_tree.json_value import encode_json
from libs.run_tree.overrides import OverrideEntry
from libs.service_kit.work_threads import WorkThreads
from services.sync_engine.engine_log import BY_ITSELF, EngineLog, decided_anew, run_change
from services.sync_engine.runs.location import LocatedRun
from services.sync_engine.runs.run import RunRecord


class CreationFiles:
    """The `creation.json` of runs, kept in step with the log. Each projection imports before it writes."""

    def __init__(self, log: EngineLog, lock_timeout: float, threads: WorkThreads) -> None:
        self._log = log
        self._threads = threads
        self._lock_timeout = lock_timeout

    async def read(self, located: LocatedRun) -> CreationRecord:
        """The file as it is; errors of `read_creation`."""
        return await self._threads.run(lambda: read_creation(creation_path(located.folder)))

    async def import_foreign(self, located: LocatedRun) -> CreationRecord:
        """Records entries that other programs wrote. Takes the lock only when there are any."""
        record = await self.read(located)
        if self.knows(await self._log.run(located.identity), record):
            return record
        return await self._under_lock(located, write=False)

    def knows(self, logged: RunRecord, record: CreationRecord) -> bool:
        """Whether the log holds every override that the file does."""
        known = {e.id for e in logged.entries}
        return all(e.id in known for e in record.overrides)

    async def project(self, located: LocatedRun, read: CreationRecord | None = None) -> CreationRecord:
        """Makes status and overrides in the file what the log says. Nothing is written when they are that already.

        `read`: the file as it was a moment ago, if it was read then.
        """
        record = read if read is not None else await self.read(located)
        logged = await self._log.run(located.identity)
        if _in_step(record, logged):
            return record
        return await self._under_lock(located, write=True)

    async def _under_lock(self, located: LocatedRun, *, write: bool) -> CreationRecord:
        loop = asyncio.get_running_loop()
        path = creation_path(located.folder)

        def change(record: CreationRecord) -> CreationRecord:
            logged = asyncio.run_coroutine_threadsafe(
                self._record_foreign(located.identity, record.overrides), loop
            ).result()
            return _projected(record, logged) if write else record

        def work(path: Path) -> CreationRecord:
            # Ids are in the file before anything is imported: a scan that is cut off in between imports nothing twice.
            mutate_creation(path, lambda r: r.with_override_ids(_new_id), self._lock_timeout)
            return mutate_creation(path, change, self._lock_timeout)

        return await self._threads.run(lambda: work(path))

    async def _record_foreign(self, run: str, in_file: Sequence[OverrideEntry]) -> RunRecord:
        """Appends the entries that the log doesn't know and returns the run with them."""

        async def attempt() -> RunRecord:
            logged = await self._log.run(run)
            foreign = _unknown_entries(logged, in_file)
            if not foreign:
                return logged
            await self._log.append(BY_ITSELF, run_change(logged, *foreign))
            return await self._log.run(run)

        return await decided_anew(attempt)


def _unknown_entries(logged: RunRecord, in_file: Sequence[OverrideEntry]) -> list[events.RunOverrideImported]:
    known = {e.id for e in logged.entries}
    foreign = []
    for index, entry in enumerate(in_file):
        if entry.id is None or entry.id in known:
            continue
        known.add(entry.id)
        text = encode_json(dict(entry.raw)).decode()
        foreign.append(
            events.RunOverrideImported(run=logged.run, override_id=entry.id, entry_json=text, file_index=index)
        )
    return foreign


def _new_id() -> str:
    return str(uuid.uuid4())


def _in_step(record: CreationRecord, logged: RunRecord) -> bool:
    in_file = [e.id for e in record.overrides]
    in_log = [e.id for e in logged.entries]
    status_agrees = logged.sync_status is None or record.sync_status is logged.sync_status
    return in_file == in_log and status_agrees


def _projected(record: CreationRecord, logged: RunRecord) -> CreationRecord:
    in_file = {e.id for e in record.overrides}
    record = record.with_appended_overrides([e for e in logged.entries if e.id not in in_file])
    return record if logged.sync_status is None else record.with_sync_status(logged.sync_status)
