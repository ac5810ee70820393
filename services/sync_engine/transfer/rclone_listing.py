"""What is at a remote of rclone, and of which kind: nothing is never taken for what couldn't be listed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from services.sync_engine.transfer.far_side import FarName
from services.sync_engine.transfer.path_order import by_path
from services.sync_engine.transfer.present import Different, differing_error
from services.sync_engine.transfer.rclone_daemon import RcloneDaemon, RcloneError
from services.sync_engine.transfer.rclone_failures import RCLONE_FAILURES
from services.sync_engine.transfer.rclone_names import as_listed
from services.sync_engine.transfer.spilled_list import ListSorter, separated, spill_file
from services.sync_engine.transfer.tool_failures import tool_failure
from services.sync_engine.transfer.transport import EntryKind, SourceEntry

# They are looked at one by one; more are found in a listing of all that is there.
_FEW_FOLDERS = 20
_EVERY_NAME = ("--recursive", "--no-modtime", "--no-mimetype")


class _Listed(msgspec.Struct, frozen=True):
    Path: str
    Size: int
    IsDir: bool


_LISTED = msgspec.json.Decoder(_Listed)


class RcloneListing:
    """Every method raises TransferError when the remote can't be asked; DESTINATION_FILE_DIFFERS where a file has the
    place of a folder."""

    def __init__(self, daemon: RcloneDaemon, fs: str) -> None:
        self._daemon = daemon
        self._fs = fs

    def names(self, folder: bytes, *options: str) -> Sequence[FarName]:
        """Everything below a folder, in the order of the paths; nothing when it isn't there."""
        found = ListSorter(FarName, by_path)
        if self.is_folder(folder):
            with spill_file() as listing:
                self._daemon.tell("listing", listing, "lsjson", *_EVERY_NAME, *options, "--", self.place(folder))
                for line in separated(listing, b"\n"):
                    if line.startswith(b"{"):
                        item = _LISTED.decode(line.removesuffix(b","))
                        kind = EntryKind.DIRECTORY if item.IsDir else EntryKind.FILE
                        found.add(FarName(as_listed(item.Path), kind, max(0, item.Size)))
        return found.finish()

    def is_folder(self, folder: bytes) -> bool:
        """False when nothing is there. DESTINATION_FILE_DIFFERS when it is no folder."""
        item = self._daemon.must("looking at", "operations/stat", [folder], fs=self._fs, remote=folder.decode())["item"]
        if item is not None and not item["IsDir"]:
            raise differing_error([Different(folder, None, None)])
        return item is not None

    def is_file(self, place: bytes) -> bool:
        """Whether a file has this name, or a symlink that leads to one; without a listing. For any thread."""
        only = {"filesOnly": True, "noModTime": True, "noMimeType": True}
        answer = self._daemon.told(
            "looking for", "operations/stat", [place], fs=self._fs, remote=place.decode(), opt=only
        )
        return answer["item"] is not None

    def folders_in(self, folder: bytes) -> frozenset[bytes]:
        """Names of the folders in one; none when it isn't there."""
        listed = self.entries(folder, recurse=False) or []
        return frozenset(as_listed(item["Name"]) for item in listed if item["IsDir"])

    def entries(self, folder: bytes, *, recurse: bool) -> list[dict[str, Any]] | None:
        """As rclone describes them, all at once; None when there is no such folder."""
        options = {"recurse": recurse, "noMimeType": True, "noModTime": True}

        def ask(_: object) -> list[dict[str, Any]] | None:
            try:
                answer = self._daemon.call("operations/list", fs=self._fs, remote=folder.decode(), opt=options)
            except RcloneError as refusal:
                if "directory not found" in refusal.words:
                    return None
                if "is a file" in refusal.words or "not a directory" in refusal.words:
                    raise differing_error([Different(folder, None, None)]) from refusal
                raise tool_failure(RCLONE_FAILURES, "listing", None, refusal.words) from refusal
            return list(answer["list"])

        return self._daemon.attend([()], ask)[0]

    def folders(self, target: bytes, asked: Sequence[SourceEntry]) -> Sequence[FarName]:
        """Those of a run's folders, or more, that are there."""
        if len(asked) > _FEW_FOLDERS:
            return self.names(target, "--dirs-only")
        there = (entry.path for entry in asked if self.is_folder(target + b"/" + entry.path))
        return [FarName(path, EntryKind.DIRECTORY, 0) for path in there]

    def place(self, folder: bytes) -> str:
        """The folder as rclone's arguments name it."""
        between = "" if self._fs.endswith((":", "/")) else "/"
        return self._fs + between + folder.decode()
