"""The far side of `rsync_ssh`: rsync brings the bytes, fixed scripts over the same ssh connection do the rest."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from itertools import islice

from services.sync_engine.transfer import far_scripts as scripts
from services.sync_engine.transfer.arrived import refuse_left_out
from services.sync_engine.transfer.bandwidth import Bandwidth, SharedBandwidth
from services.sync_engine.transfer.far_side import FarDigests, FarName, NotLanded
from services.sync_engine.transfer.incoming import partial_folder
from services.sync_engine.transfer.opened_source import opened_folder
from services.sync_engine.transfer.path_order import by_path
from services.sync_engine.transfer.private_folder import private_folder, write_private
from services.sync_engine.transfer.rsync_failures import RSYNC_FAILURES
from services.sync_engine.transfer.rsync_hashing import hash_there
from services.sync_engine.transfer.rsync_probe import try_names
from services.sync_engine.transfer.rsync_send import RsyncSend
from services.sync_engine.transfer.sealed_file import SealedFile
from services.sync_engine.transfer.spilled_list import ListSorter, in_portions, separated, spill_file
from services.sync_engine.transfer.ssh_session import SshAccess, SshSession, open_ssh
from services.sync_engine.transfer.tool_failures import tool_failure
from services.sync_engine.transfer.tool_process import find_tool
from services.sync_engine.transfer.tools import Toolbox
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import (
    CopiedFile,
    EntryKind,
    FailureKind,
    SourceEntry,
    TargetTraits,
    TransferError,
)

_KINDS = {b"f": EntryKind.FILE, b"d": EntryKind.DIRECTORY, b"l": EntryKind.SYMLINK}
_VERSION = re.compile(r"rsync\s+version\s+v?(\d+)\.(\d+)")
_OLDEST = (3, 2)
_FOLDERS = 5000
"""So many are made, or dated, by one call."""
_MADE = 200
"""And so many by one mkdir: their names stay below what the far end takes for arguments, however long they are."""


class RsyncPlace:
    """A folder of a host that ssh reaches."""

    def __init__(self, access: SshAccess, path: str, *, tools: Toolbox, bandwidth: Bandwidth) -> None:
        self.tools = tools
        self._access = access
        self._root = os.fsencode(path)
        self.bandwidth = SharedBandwidth(bandwidth)

    @contextmanager
    def open(self, control: TransferControl, most_seconds: float | None = None) -> Iterator[RsyncFar]:
        """As `FarPlace.open`."""
        self.tools.require()
        rsync = find_tool("rsync")
        with open_ssh(self._access, control, most_seconds) as ssh:
            yield RsyncFar(ssh, rsync, self._root, self.bandwidth, self._access.target)


class RsyncFar:
    """Implements `FarSide`."""

    method = "far_sha256sum"
    dates_folders = True
    note = "hashed by the far host, whose own cache was not passed"

    def __init__(self, ssh: SshSession, rsync: str, root: bytes, bandwidth: SharedBandwidth, target: str) -> None:
        self._ssh = ssh
        self._rsync = rsync
        self._root = root
        self._bandwidth = bandwidth
        self._has_incoming = False
        self._made: set[bytes] = set()
        self.host = target.rpartition("@")[2]

    def has_incoming(self) -> bool:
        """As `FarSide.has_incoming`."""
        said = self._ssh.must("looking for the incoming folder", scripts.HAS_INCOMING, [self._root])
        self._has_incoming = said.strip() == b"there"
        return self._has_incoming

    def check(self) -> None:
        """As `FarSide.check`, with what is needed there. A full destination passes: that is a matter of each copy."""
        self._refuse_old_far_tools()
        try:
            self._ssh.must("writing a probe file", scripts.CHECK, [self._root])
        except TransferError as error:
            if error.kind is not FailureKind.DESTINATION_FULL:
                raise

    def traits(self, folder: bytes) -> TargetTraits:
        """As `FarSide.traits`. CONFIGURATION when the far end lacks what is needed there."""
        self._refuse_old_far_tools()
        return try_names(self._ssh, self._root, folder)

    def _refuse_old_far_tools(self) -> None:
        far = self._ssh.run(scripts.VERSIONS, [])
        words = (far.stdout + far.stderr).decode(errors="replace")
        version = _VERSION.search(words)
        if far.code in (0, 123) and version is not None and (int(version[1]), int(version[2])) < _OLDEST:
            raise TransferError(
                FailureKind.CONFIGURATION, f"rsync 3.2 or newer is needed at the far end; it says {version[0]}"
            )
        if far.code != 0:
            raise TransferError(
                FailureKind.CONFIGURATION,
                "rsync 3.2, GNU coreutils and GNU findutils are needed at the far end: "
                + far.stderr.decode(errors="replace").strip(),
            )

    def free_bytes(self) -> int | None:
        """As `FarSide.free_bytes`."""
        said = self._ssh.must("asking for free space", scripts.FREE, [self._root]).strip()
        return int(said) if said.isdigit() else None

    def names(self, folder: bytes) -> Sequence[FarName]:
        """As `FarSide.names`."""
        found = ListSorter(FarName, by_path)
        with spill_file() as listing:
            self._ssh.must("listing", scripts.NAMES, [self._root, folder], stdout=listing)
            # The first is BEGINS.
            fields = islice(separated(listing, b"\0"), 1, None)
            for kind, size, path, target in zip(*(fields,) * 4, strict=True):
                found.add(FarName(path, _KINDS.get(kind), int(size), target if kind == b"l" else None))
        return found.finish()

    def digests(
        self, folder: bytes, files: Mapping[bytes, int], max_stream_bytes: int, hashed: Callable[[bytes, int], None]
    ) -> FarDigests:
        """As `FarSide.digests`: hashed there, so no size is too large."""
        return hash_there(self._ssh, self._root, folder, files, hashed)

    def holds_any(self, folder: bytes, paths: Sequence[bytes]) -> bool:
        """As `FarSide.holds_any`."""
        return bool(self._ssh.must("looking for files", scripts.HOLDS_ANY, [self._root, folder], paths))

    def unlisted(self, folder: bytes, paths: Sequence[bytes]) -> frozenset[bytes]:
        """As `FarSide.unlisted`: a listing has everything."""
        return frozenset()

    def send(
        self, source: bytes, batch: bytes, entries: Sequence[SourceEntry], moved: Callable[[int, bytes], None]
    ) -> None:
        """As `FarSide.send`."""
        incoming = batch.rpartition(b"/")[0]
        if incoming not in self._made:
            # The last folder of a path rsync makes itself.
            self._make_incoming(incoming)
            self._made.add(incoming)
        sending = self._sending(("-lt",), _partial(batch))
        try:
            with opened_folder(source) as run:
                sending.send(run, batch, entries, moved, self._bandwidth)
        except TransferError as failure:
            # The far rsync can die of a full disk before its words come through.
            wordless = failure.kind in (FailureKind.NETWORK, FailureKind.TOOL_FAILED)
            if wordless and self._is_full_for(max(entry.size for entry in entries)):
                raise TransferError(FailureKind.DESTINATION_FULL, failure.message) from failure
            raise
        refuse_left_out(entries, self.names(batch))

    def _make_incoming(self, folder: bytes) -> None:
        # What was there at the session's beginning isn't made anew: a mount may have gone meanwhile.
        script = scripts.MAKE_IN_INCOMING if self._has_incoming else scripts.MAKE_FOLDER
        self._ssh.must("making the incoming folder", script, [self._root, folder])

    def _is_full_for(self, nbytes: int) -> bool:
        try:
            free = self.free_bytes()
        except TransferError:
            # What broke the sending broke this question too, and has said more.
            return False
        return free is not None and free < nbytes

    def _sending(self, options: Sequence[str], partial: bytes | None = None) -> RsyncSend:
        command = [self._rsync, "-e", shlex.join(self._ssh.command), *options]
        return RsyncSend(self._ssh, command, self._root, partial)

    def land(
        self,
        batch: bytes,
        target: bytes,
        files: Sequence[CopiedFile],
        spoiled: Sequence[bytes],
        staying: AbstractSet[bytes],
    ) -> NotLanded | None:
        """As `FarSide.land`: a second link is made, which fails where the name is taken."""
        if spoiled:
            names = [batch + b"/" + path for path in spoiled]
            self._ssh.must("removing files that changed", scripts.REMOVE, [self._root], names)
        with self._ssh.control.quiet(sum(file.size for file in files)):
            done = self._ssh.run(scripts.LAND, [self._root, batch, target])
        words = done.stderr.decode(errors="replace")
        failure = tool_failure(RSYNC_FAILURES, "moving into place", done.code, words)
        if done.code != 0:
            raise failure
        left = tuple(done.stdout.split(b"\0")[:-1])
        return NotLanded(left, failure) if left else None

    def settle_folders(self, target: bytes, folders: Sequence[SourceEntry]) -> None:
        """As `FarSide.settle_folders`."""
        self._ssh.must("making the run's folder", scripts.MAKE_FOLDER, [self._root, target])
        for portion in in_portions(folders, _FOLDERS):
            # Not by rsync: it takes symlinks away that have these names.
            made = [b"./" + folder.path for folder in portion]
            self._ssh.must("making folders", scripts.MAKE_FOLDERS, [self._root, target], made, per=_MADE)
            self._ssh.control.look()
        # When all are there: what is made in a folder changes its time.
        for portion in in_portions(folders, _FOLDERS):
            dated = [part for folder in portion for part in (_seconds(folder.mtime_ns), folder.path)]
            self._ssh.must("dating folders", scripts.DATE_FOLDERS, [self._root, target], dated)
            self._ssh.control.look()
        self._ssh.must("syncing", scripts.SYNC, [self._root, target])

    def move(self, pairs: Sequence[tuple[bytes, bytes]], guard: bytes, *, replaced: bool) -> bool:
        """As `FarSide.move`: renamed, and whether the guard is there is looked at right before each."""
        self._make_incoming(guard)
        self._ssh.must("moving", scripts.MOVE, [self._root, guard], [name for pair in pairs for name in pair])
        return True

    def seal(self, files: Sequence[SealedFile], incoming: bytes) -> None:
        """As `FarSide.seal`: renamed over what is there, so nobody sees half a file."""
        with private_folder() as folder:
            pairs: list[bytes] = []
            entries: list[SourceEntry] = []
            for number, file in enumerate(files):
                name = b"%d" % number
                place = folder / str(number)
                write_private(place, file.pieces())
                os.utime(place, ns=(file.mtime_ns, file.mtime_ns))
                entries.append(SourceEntry(name, EntryKind.FILE, file.size, file.mtime_ns, 0, 0))
                pairs += [incoming + b"/" + name, file.path]
            self._make_incoming(incoming)
            self._sending(("-t", "--chmod=F666")).send(
                os.fsencode(folder), incoming, entries, lambda nbytes, path: None, self._bandwidth
            )
            self._ssh.must("sealing", scripts.REPLACE, [self._root], pairs)

    def children(self, folder: bytes) -> Sequence[bytes]:
        """As `FarSide.children`."""
        return self._ssh.must("listing", scripts.CHILDREN, [self._root, folder]).split(b"\0")[:-1]

    def remove(self, folder: bytes) -> None:
        """As `FarSide.remove`."""
        self.remove_files([folder])

    def remove_files(self, paths: Sequence[bytes]) -> None:
        """As `FarSide.remove_files`."""
        self._ssh.must("removing", scripts.REMOVE, [self._root], paths)


def _partial(batch: bytes) -> bytes:
    # The job's, not the attempt's: of a large file the next attempt sends what is missing, however often the line
    # breaks. What rsync makes of it is the file by its hash, or is sent anew.
    return partial_folder(batch.rpartition(b"/")[0].rpartition(b"-")[0])


def _seconds(time_ns: int) -> bytes:
    """As `touch` reads them: with a decimal point."""
    seconds, rest = divmod(abs(time_ns), 1_000_000_000)
    return b"%s%d.%09d" % (b"-" if time_ns < 0 else b"", seconds, rest)
