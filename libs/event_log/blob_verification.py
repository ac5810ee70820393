"""Reads the blobs that events name: each once, whoever names it first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from libs.event_log.blob_store import BlobError, BlobStore
from libs.event_log.event import EventTypes, RecordedEvent
from libs.event_log.named_blobs import blobs_named_by


@dataclass(frozen=True, slots=True)
class BlobProblem:
    """`position`: the first event that names the blob."""

    digest: str
    position: int
    reason: str


class BlobCheck:
    """Is shown the log's events, page by page, and reads what they name. Blocks."""

    def __init__(self, blobs: BlobStore, event_types: EventTypes) -> None:
        self._blobs = blobs
        self._event_types = event_types
        self._seen: set[bytes] = set()
        self.checked = 0
        self.problems: list[BlobProblem] = []

    def show(self, events: Iterable[RecordedEvent]) -> None:
        for event in events:
            try:
                named = blobs_named_by(event, self._event_types)
            except DecodeError:
                # The hash chain says what is wrong with the event itself.
                continue
            for digest in named:
                self._look(digest, event.position)

    def _look(self, digest: str, position: int) -> None:
        key = digest.encode()
        if key in self._seen:
            return
        self._seen.add(key)
        self.checked += 1
        try:
            self._blobs.check_sync(digest)
        except BlobError as error:
            self.problems.append(BlobProblem(digest, position, str(error)))
        except (OSError, ValueError) as error:
            self.problems.append(BlobProblem(digest, position, f"the blob {digest} can't be read: {error}"))
