"""Uploads to a bucket that were begun in parts and never ended: their parts stand in no listing, and take room until
somebody aborts them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from services.sync_engine.transfer.incoming import INCOMING
from services.sync_engine.transfer.rclone_daemon import RcloneDaemon, RcloneError
from services.sync_engine.transfer.rclone_failures import RCLONE_FAILURES
from services.sync_engine.transfer.tool_failures import tool_failure

_LOGGER = logging.getLogger(__name__)
# By the server's clock, which may run ahead of this one: however young, nothing here goes on with them.
_HOWEVER_YOUNG = "-24h"
# Of a whole bucket, too, as rclone's own server says it.
_NONE = "NoSuchUpload"


class RefusalNote:
    """Says of one destination once that its server refuses, however many sessions come to know it."""

    def __init__(self) -> None:
        self._written = False

    def write(self, place: str, words: str) -> None:
        if not self._written:
            self._written = True
            _LOGGER.warning("unfinished uploads below %s aren't swept: %s", place, words)


class UnfinishedUploads:
    """Of one session, those below the incoming folder of a bucket's folder `fs`. What a server refuses to tell or to
    abort is a line in the log and no failure: it is room that is lost, and no data."""

    def __init__(self, daemon: RcloneDaemon, fs: str, note: RefusalNote) -> None:
        self._daemon = daemon
        self._fs = fs
        self._note = note
        self._refused = False

    def folders(self) -> set[bytes]:
        """Names of the folders in the incoming one that have some."""
        return {key.partition(b"/")[0] for key in self._keys(INCOMING) if b"/" in key}

    def abort(self, folder: bytes) -> None:
        """All below that folder of the incoming one, and no others."""
        begun = self._keys(folder)
        # rclone goes by the beginning of the key, with which `job-1` would mean `job-10`, too.
        for below in sorted({key.partition(b"/")[0] for key in begun}):
            self._command("cleanup", folder + b"/" + below, opt={"max-age": _HOWEVER_YOUNG})
        if begun and (left := self._keys(folder)):
            # Of a single one that it can't abort, rclone says nothing.
            _LOGGER.warning("parts of %d unfinished uploads stay below %s/%s", len(left), self._fs, folder.decode())

    def _keys(self, folder: bytes) -> Sequence[bytes]:
        """Relative to the folder."""
        found = self._command("list-multipart-uploads", folder)
        uploads = [upload for of_bucket in found.values() for upload in of_bucket]
        between = f"/{folder.decode()}/"
        cut = [("/" + str(upload["Key"])).partition(between) for upload in uploads]
        return [key.encode() for _, is_below, key in cut if is_below]

    def _command(self, command: str, folder: bytes, **options: object) -> dict[str, Sequence[dict[str, object]]]:
        """Nothing once it was refused."""
        if self._refused:
            return {}
        place = f"{self._fs}/{folder.decode()}"

        def ask(_: object) -> dict[str, Sequence[dict[str, object]]]:
            try:
                answer = self._daemon.call("backend/command", command=command, fs=place, **options)
            except RcloneError as refusal:
                if _NONE in refusal.words:
                    return {}
                self._refused = True
                self._note.write(place, tool_failure(RCLONE_FAILURES, command, None, refusal.words).message)
                return {}
            return answer.get("result") or {}

        return self._daemon.attend([()], ask)[0]
