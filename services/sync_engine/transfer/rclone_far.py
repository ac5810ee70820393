"""The far side of `rclone`: every file is a call of its own, so each answer tells of one file alone.

Not every backend can move a name exclusively, or replace a file in one step: what is there is looked at right before,
and verification has the last word. docs/cluster-admin.md says what that means where.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from itertools import chain

from services.sync_engine.transfer.arrived import refuse_left_out
from services.sync_engine.transfer.far_side import FarDigests, FarName, NotLanded
from services.sync_engine.transfer.incoming import INCOMING
from services.sync_engine.transfer.private_folder import private_folder, write_private
from services.sync_engine.transfer.rclone_backends import backends_of
from services.sync_engine.transfer.rclone_daemon import RcloneDaemon, RcloneError
from services.sync_engine.transfer.rclone_failures import RCLONE_FAILURES
from services.sync_engine.transfer.rclone_folders import settle_folders
from services.sync_engine.transfer.rclone_hashing import RcloneHashing
from services.sync_engine.transfer.rclone_listing import RcloneListing
from services.sync_engine.transfer.rclone_local import RcloneLocal
from services.sync_engine.transfer.rclone_move import (
    FEW_AT_ONCE,
    WholeFile,
    copy_aside,
    copy_over,
    land_files,
    take_away,
)
from services.sync_engine.transfer.rclone_names import altered_names, as_listed
from services.sync_engine.transfer.rclone_probe import try_names
from services.sync_engine.transfer.rclone_remote import RcloneRemote, backend_encoding
from services.sync_engine.transfer.rclone_room import told_when_full
from services.sync_engine.transfer.rclone_send import send_files
from services.sync_engine.transfer.rclone_sftp import RcloneSftp
from services.sync_engine.transfer.rclone_times import try_far_times
from services.sync_engine.transfer.rclone_uploads import RefusalNote, UnfinishedUploads
from services.sync_engine.transfer.sealed_file import SealedFile
from services.sync_engine.transfer.source_file import SourceFiles
from services.sync_engine.transfer.tool_failures import tool_failure
from services.sync_engine.transfer.transport import (
    CopiedFile,
    FailureKind,
    SourceEntry,
    TargetTraits,
    TransferError,
)

# Two seconds is FAT's step, the coarsest that still tells files of a run apart.
_COARSEST_MTIME_NS = 2_000_000_000


class RcloneFar:
    """Implements `FarSide`."""

    def __init__(self, daemon: RcloneDaemon, remote: RcloneRemote, uploads_refused: RefusalNote) -> None:
        self._daemon = daemon
        self._remote = remote
        self._fs = f"{remote.name}:{remote.path}"
        self._listing = RcloneListing(daemon, self._fs)
        backends = backends_of(daemon, remote.name)
        backends.refuse_unprovable(remote.name)
        self._about = daemon.must("connecting", "operations/fsinfo", fs=self._fs)
        self._local = RcloneLocal(os.fsencode(self._about["Root"]), daemon.control) if backends.is_local else None
        self._sftp = RcloneSftp(daemon, self._listing) if backends.is_sftp else None
        if self._local is not None:
            daemon.limit_without_network()
        self._uploads = UnfinishedUploads(daemon, self._fs, uploads_refused) if backends.is_s3 else None
        self._hashes_there = "sha256" in self._about["Hashes"] and backends.read_to_hash
        self.method = "far_sha256" if self._hashes_there else "download"
        self.host, self.note = socket.gethostname(), f"downloaded from {remote.name} and hashed"
        if self._hashes_there and self._local is not None:
            self.note = f"{remote.name} is a folder of this machine and was hashed here"
        elif self._hashes_there:
            # rclone doesn't tell more of who did it.
            self.host, self.note = remote.name, "hashed at the remote"

    @property
    def _features(self) -> Mapping[str, bool]:
        features: Mapping[str, bool] = self._about["Features"]
        return features

    @property
    def dates_folders(self) -> bool:
        """As `FarSide.dates_folders`. Older versions date none, and don't speak of it."""
        return self._features.get("DirSetModTime", False)

    def has_incoming(self) -> bool | None:
        """As `FarSide.has_incoming`."""
        return self._listing.is_folder(INCOMING) if self._keeps_folders else None

    def check(self) -> None:
        """As `FarSide.check`: lists the folder, and makes the incoming one where the backend has folders. What holds
        objects in buckets has a folder as soon as something is in it; the bucket itself must be there."""
        self._refuse_lost_times()
        self._refuse_links([INCOMING])
        if self._listing.entries(b"", recurse=False) is None:
            bucket = self._remote.path.strip("/").partition("/")[0]
            if not (self._features["BucketBased"] and bucket and self._has_bucket(bucket)):
                raise TransferError(FailureKind.NETWORK, f"{self._fs} is not there")
        if self._keeps_folders:
            self._daemon.must("making a folder", "operations/mkdir", fs=self._fs, remote=os.fsdecode(INCOMING))

    @property
    def _keeps_folders(self) -> bool:
        return self._features["CanHaveEmptyDirectories"]

    def _has_bucket(self, bucket: str) -> bool:
        place = f"{self._remote.name}:{bucket}"
        options = {"noMimeType": True, "noModTime": True}
        try:
            self._daemon.must("looking for the bucket", "operations/list", fs=place, remote="", opt=options)
        except TransferError as refusal:
            if "directory not found" in refusal.message:
                return False
            raise
        return True

    def _refuse_lost_times(self) -> None:
        if self._about["Precision"] > _COARSEST_MTIME_NS:
            raise TransferError(
                FailureKind.CONFIGURATION,
                f"{self._remote.name} keeps no modification times; of WebDAV, its vendor must be configured in rclone",
            )

    def traits(self, folder: bytes) -> TargetTraits:
        """As `FarSide.traits`, from what rclone knows of the backend, and what the server does with names."""
        self._refuse_lost_times()
        self._refuse_links([folder])
        altered = altered_names(backend_encoding(self._daemon, self._remote.name))
        with told_when_full(self._daemon, self._fs):
            try:
                tried = try_names(self._daemon, self._fs, folder, altered)
                keeps_far_times = try_far_times(self._daemon, self._fs, folder)
            finally:
                with suppress(TransferError):
                    self.remove(folder)
        return TargetTraits(
            case_sensitive=tried.case_sensitive and not self._features["CaseInsensitive"],
            max_name_bytes=tried.max_name_bytes,
            keeps_unicode_forms=tried.keeps_unicode_forms,
            keeps_any_bytes=False,
            keeps_symlinks=False,
            keeps_empty_folders=self._keeps_folders,
            keeps_far_times=keeps_far_times,
            alters_case=tried.alters_case,
            alters_unicode_forms=tried.alters_unicode_forms,
            folds_sharp_s=tried.folds_sharp_s,
            alters=altered if tried.not_kept is None else re.compile(f"{altered.pattern}|{tried.not_kept}"),
        )

    def free_bytes(self) -> int | None:
        """As `FarSide.free_bytes`."""
        if not self._features["About"]:
            return None
        try:
            free = self._daemon.call("operations/about", fs=self._fs).get("free")
        except RcloneError:
            # Many servers don't tell.
            return None
        return None if free is None else int(free)

    def names(self, folder: bytes) -> Sequence[FarName]:
        """As `FarSide.names`: by an rclone of its own, which tells of a name as soon as it knows it; the one that
        answers calls would gather all of them first."""
        if self._local is not None:
            return self._local.names(folder)
        if self._sftp is not None:
            return self._sftp.names(folder)
        return self._listing.names(folder)

    def digests(
        self, folder: bytes, files: Mapping[bytes, int], max_stream_bytes: int, hashed: Callable[[bytes, int], None]
    ) -> FarDigests:
        """As `FarSide.digests`."""
        root = None if self._local is None else self._local.root
        hashing = RcloneHashing(self._daemon, self._fs, root, download=not self._hashes_there)
        return hashing.digests(folder, files, max_stream_bytes, hashed)

    def holds_any(self, folder: bytes, paths: Sequence[bytes]) -> bool:
        """As `FarSide.holds_any`."""
        if self._local is not None:
            return self._local.holds_any(folder, paths)
        # One after the other: mostly the first is there.
        return any(self._daemon.attend([folder + b"/" + path], self._listing.is_file)[0] for path in paths)

    def unlisted(self, folder: bytes, paths: Sequence[bytes]) -> frozenset[bytes]:
        """As `FarSide.unlisted`."""
        return self._sftp.unlisted(folder, paths) if self._sftp is not None else frozenset()

    def send(
        self, source: bytes, batch: bytes, entries: Sequence[SourceEntry], moved: Callable[[int, bytes], None]
    ) -> None:
        """As `FarSide.send`."""
        self._refuse_links([batch])
        with told_when_full(self._daemon, self._fs):
            send_files(self._daemon, SourceFiles(source), self._fs, batch, entries, moved)

    def land(
        self,
        batch: bytes,
        target: bytes,
        files: Sequence[CopiedFile],
        spoiled: Sequence[bytes],
        staying: AbstractSet[bytes],
    ) -> NotLanded | None:
        """As `FarSide.land`: what is there is looked at right before; backends have no exclusive move."""
        self._refuse_links({_above(target + b"/" + file.path) for file in files}, to_be_made=True)
        names = [
            WholeFile(batch + b"/" + file.path, target + b"/" + file.path, file.size, over=file.path in staying)
            for file in files
        ]
        with told_when_full(self._daemon, self._fs):
            land_files(self._daemon, self._fs, names)
        below = len(batch) + 1
        waiting = {as_listed(item["Path"])[below:] for item in self._listing.entries(batch, recurse=True) or []} - set(
            spoiled
        )
        left = tuple(file.path for file in files if file.path in waiting)
        if not left:
            return None
        return NotLanded(left, TransferError(FailureKind.NETWORK, "files were not moved into place", left))

    def settle_folders(self, target: bytes, folders: Sequence[SourceEntry]) -> None:
        """As `FarSide.settle_folders`; times where the backend keeps those of folders."""
        self._refuse_links(chain([target], (target + b"/" + folder.path for folder in folders)), to_be_made=True)
        with told_when_full(self._daemon, self._fs):
            settle_folders(self._daemon, self._listing.place(target), folders)
        if folders and self._keeps_folders:
            refuse_left_out(folders, self._listing.folders(target, folders))

    def _refuse_links(self, folders: Iterable[bytes], *, to_be_made: bool = False) -> None:
        """Of folders at any other server only that knows what they are."""
        if self._local is not None:
            self._local.refuse_links(folders)
        elif self._sftp is not None:
            self._sftp.refuse_links(folders, to_be_made=to_be_made)

    def move(self, pairs: Sequence[tuple[bytes, bytes]], guard: bytes, *, replaced: bool) -> bool:
        """As `FarSide.move`; no call outlives rclone, and whose job it is is asked before each."""
        self._refuse_links({_above(name) for pair in pairs for name in pair})
        with told_when_full(self._daemon, self._fs):
            if self._features["Move"]:
                take_away(self._daemon, self._fs, pairs)
                return True
            copy_aside(self._daemon, self._fs, pairs)
        if not replaced:
            self.remove_files([name for name, _ in pairs])
        return not replaced

    def seal(self, files: Sequence[SealedFile], incoming: bytes) -> None:
        """As `FarSide.seal`: in one step where the backend renames over files or puts whole objects (local, SFTP,
        S3). Objects get their names by a copy of what was put into `incoming`, so that one that comes late, after
        another engine has sealed and that folder is gone, finds nothing to copy. Not by a move: for one, rclone deletes
        what has the name first."""
        self._refuse_links({_above(file.path) for file in files})
        with private_folder() as folder:
            for number, file in enumerate(files):
                place = folder / str(number)
                write_private(place, file.pieces())
                os.utime(place, ns=(file.mtime_ns, file.mtime_ns))

            def put(numbered: tuple[int, SealedFile]) -> None:
                number, file = numbered
                whole = {"srcFs": str(folder), "srcRemote": str(number)}
                if self._features["Copy"] and not self._features["Move"]:
                    there = {"srcFs": self._fs, "srcRemote": f"{incoming.decode()}/{number}"}
                    copy_over(self._daemon, "sealing", file.path, whole, self._fs, there["srcRemote"])
                    whole = there
                copy_over(self._daemon, "sealing", file.path, whole, self._fs, file.path.decode())

            with told_when_full(self._daemon, self._fs):
                try:
                    self._daemon.attend(list(enumerate(files)), put)
                except TransferError as failure:
                    # A name of the moment would make each failure another one.
                    words = failure.message
                    for moment in (str(folder), incoming.decode()):
                        words = words.replace(moment, "the seal's own files")
                    raise TransferError(failure.kind, words, failure.paths) from failure

    def children(self, folder: bytes) -> Sequence[bytes]:
        """As `FarSide.children`."""
        self._refuse_links([folder])
        listed = set(self._listing.folders_in(folder))
        if self._uploads is not None and folder == INCOMING:
            listed |= self._uploads.folders()
        return sorted(listed)

    def remove(self, folder: bytes) -> None:
        """As `FarSide.remove`."""
        self._refuse_links([folder])
        if self._uploads is not None:
            self._uploads.abort(folder)
        if self._listing.entries(folder, recurse=False) is not None:
            self._daemon.must("removing", "operations/purge", fs=self._fs, remote=folder.decode())

    def remove_files(self, paths: Sequence[bytes]) -> None:
        """As `FarSide.remove_files`."""
        self._refuse_links({_above(path) for path in paths})

        def remove(path: bytes) -> None:
            try:
                self._daemon.call("operations/deletefile", fs=self._fs, remote=path.decode())
            except RcloneError as refusal:
                if "object not found" not in refusal.words:
                    raise tool_failure(RCLONE_FAILURES, "removing", None, refusal.words, [path]) from refusal

        self._daemon.attend(paths, remove, workers=FEW_AT_ONCE)


def _above(path: bytes) -> bytes:
    return path.rpartition(b"/")[0]
