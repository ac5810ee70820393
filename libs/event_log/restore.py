"""Makes a new log from a backup. The service is stopped; the place must be empty. Blocking calls.

The new log has a name of its own, so cursors and checkpoints of the old one don't pass for its own. Its first event
takes the place of the old first event and holds it, with the old head: put back, it gives the old chain. All others
keep their positions, ids and times, and are chained anew.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from msgspec.structs import replace

from labferry.events.v1 import event_pb2
from labferry.events.v1.log_events_pb2 import RestoredFrom, StoreCreated
from libs.event_log.backup_format import Manifest
from libs.event_log.backup_reading import BackupError, BackupParts, read_backup
from libs.event_log.blob_store import BlobStore
from libs.event_log.event import EventTypes, RecordedEvent
from libs.event_log.event_message import add_message
from libs.event_log.genesis import LOG_EVENT_TYPES, genesis_event
from libs.event_log.hash_chain import FIRST_PREVIOUS_HASH, event_hash
from libs.event_log.store import RequestRecord
from libs.event_log.uuid7 import Uuid7Source

_WORK_FOLDER = "restoring"


class NewLog(Protocol):
    """An empty log that is being filled; nobody sees it before `place`. `store_id` is its own from the beginning."""

    @property
    def store_id(self) -> str: ...

    def add_events(self, events: Sequence[RecordedEvent]) -> None: ...

    def add_requests(self, records: Sequence[RequestRecord]) -> None: ...

    def place(self) -> None:
        """Makes it the service's log, at once and durably. LogLocationError when there is one by now."""

    def discard(self) -> None:
        """Leaves nothing of it. Called at the end, placed or not."""


class NewLogMaker(Protocol):
    """Begins a new log for a service; `work_folder` is there for what it needs meanwhile.

    LogLocationError when the service has a log already, LogInUseError when it runs.
    """

    def __call__(self, work_folder: Path) -> NewLog: ...


@dataclass(frozen=True, slots=True)
class RestoredLog:
    """The new log, and what it was made from."""

    store_id: str
    head_hash: bytes
    manifest: Manifest


class Restore:
    """One restore. `service`: whose log is wanted; `version`: of Labferry; `now_ns`: the time to note."""

    def __init__(self, service: str, version: str, now_ns: int) -> None:
        self._service = service
        self._version = version
        self._now_ns = now_ns
        self._hash = FIRST_PREVIOUS_HASH

    def run(
        self, archive: Path, sha256: str, state_dir: Path, begin: NewLogMaker, blobs: Path | None = None
    ) -> RestoredLog:
        """Restores into a service's state folder. Whatever goes wrong, the folder is as it was.

        `blobs` is the folder of the service's blobs; absent: in the state folder.

        BackupError for an archive that isn't whole and sound; LogLocationError, LogInUseError, OSError for the place.
        """
        work_folder = state_dir / _WORK_FOLDER
        _clear(work_folder)
        work_folder.mkdir(mode=0o700, parents=True)
        try:
            log = begin(work_folder)
            try:
                return self._fill(log, archive, sha256, work_folder / "blobs", blobs or state_dir / "blobs")
            finally:
                log.discard()
        finally:
            _clear(work_folder)

    def _fill(self, log: NewLog, archive: Path, sha256: str, staged: Path, blobs: Path) -> RestoredLog:
        store = BlobStore(staged)
        known: list[Manifest] = []

        def manifest(found: Manifest) -> None:
            if found.service != self._service:
                raise BackupError("manifest.json", f"is of the service {found.service}, not {self._service}")
            known.append(found)

        def events(page: Sequence[RecordedEvent]) -> None:
            log.add_events([self._chained(log.store_id, event, known[0]) for event in page])

        def blob(digest: str, content: BinaryIO) -> None:
            store.put_file_sync(content, digest)

        found = read_backup(archive, sha256, BackupParts(manifest, events, blob, log.add_requests))
        if staged.exists():
            _move_blobs(staged, blobs)
        log.place()
        return RestoredLog(log.store_id, self._hash, found)

    def _chained(self, store_id: str, event: RecordedEvent, manifest: Manifest) -> RecordedEvent:
        if event.position == 1:
            event = self._first_event(store_id, event, manifest)
        self._hash = event_hash(store_id, self._hash, event)
        return replace(event, hash=self._hash)

    def _first_event(self, store_id: str, old: RecordedEvent, manifest: Manifest) -> RecordedEvent:
        # Of the archive, the head is proven only at its end; a head that is wrong ends the restore then.
        restored = RestoredFrom(
            store_id=manifest.store_id,
            head_position=manifest.head_position,
            head_hash=bytes.fromhex(manifest.head_hash),
            first_event=add_message(event_pb2.EventBatch(), old, EventTypes(LOG_EVENT_TYPES)),
        )
        restored.restored_time.FromNanoseconds(self._now_ns)
        created = StoreCreated(store_id=store_id, service=self._service, version=self._version, restored_from=restored)
        new = genesis_event(created)
        return RecordedEvent(
            position=1,
            stream=old.stream,
            revision=old.revision,
            type=new.type,
            event_id=Uuid7Source().next(self._now_ns),
            recorded_ns=old.recorded_ns,
            actor=new.actor,
            payload=new.payload,
            hash=b"",
        )


def _move_blobs(staged: Path, blobs: Path) -> None:
    """Blobs go first: without the log that names them they are nothing."""
    kept = BlobStore(blobs)
    for path in sorted(staged.glob("??/*")):
        with path.open("rb") as content:
            kept.put_file_sync(content, path.name)


def _clear(work_folder: Path) -> None:
    if work_folder.exists():
        shutil.rmtree(work_folder)
