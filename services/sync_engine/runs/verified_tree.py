"""What became of a run's files since they were proven at a destination (SPEC §4 enqueue of a verified run)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from services.sync_engine.runs.location import LocatedRun
from services.sync_engine.runs.run import AcceptedChange
from services.sync_engine.transfer.path_order import InStep
from services.sync_engine.transfer.source_file import SourceFiles
from services.sync_engine.transfer.source_tree import scan_run
from services.sync_engine.transfer.spilled_list import ListWriter
from services.sync_engine.transfer.transport import CopiedFile, EntryKind, SourceEntry, bytes_unless_text
from services.sync_engine.validation.finding import Finding, OffendingKind, Rule, Tier


@dataclass(frozen=True, slots=True)
class ChangedFile:
    """A proven file that holds another content now, or is missing: then `new_sha256` is empty. Equal hashes: a symlink
    and a file, one in the place of the other, and the file holds the target."""

    path: bytes
    old_sha256: str
    new_sha256: str

    def is_accepted_by(self, accepted: Sequence[AcceptedChange]) -> bool:
        """Whether an operator accepted exactly this change."""
        return any(
            (a.path, a.old_sha256, a.new_sha256) == (self.path, self.old_sha256, self.new_sha256) for a in accepted
        )


@dataclass(frozen=True, slots=True)
class ChangesSince:
    """`kept` are the proven files that hold the same still, with their present times; `added` came since."""

    kept: Sequence[CopiedFile]
    changed: Sequence[ChangedFile]
    added: Sequence[bytes]

    def refused(self, accepted: Sequence[AcceptedChange]) -> Sequence[ChangedFile]:
        """The changes that no operator accepted."""
        return [change for change in self.changed if not change.is_accepted_by(accepted)]


def what_changed_since(
    located: LocatedRun, proven: Sequence[CopiedFile], *, cleaned: Sequence[Sequence[CopiedFile]] = ()
) -> ChangesSince:
    """Compares the run as it lies there with files sorted by path. A file whose times moved is hashed: only another
    content is a change. TransferError when the run can't be read.

    `cleaned`: lists of files whose local data was deleted once they were proven, each sorted by path: that one of them
    is missing is no change.
    """
    deleted = [InStep(files) for files in cleaned]
    kept = ListWriter(CopiedFile)
    changed: list[ChangedFile] = []
    added: list[bytes] = []
    before = iter(proven)
    file = next(before, None)
    for entry in scan_run(located.folder, of_project=located.path.is_project):
        if entry.kind is EntryKind.DIRECTORY:
            continue
        while file is not None and file.path < entry.path:
            _note_missing(file, kept, changed, deleted)
            file = next(before, None)
        if file is None or file.path != entry.path:
            added.append(entry.path)
            continue
        sha256 = _hash(located.folder, entry, file)
        if sha256 != file.sha256 or entry.kind is not file.kind:
            changed.append(ChangedFile(file.path, file.sha256, sha256))
        else:
            kept.append(
                replace(file, size=entry.size, mtime_ns=entry.mtime_ns, ctime_ns=entry.ctime_ns, inode=entry.inode)
            )
        file = next(before, None)
    while file is not None:
        _note_missing(file, kept, changed, deleted)
        file = next(before, None)
    return ChangesSince(kept.finish(), changed, added)


def _note_missing(
    file: CopiedFile,
    kept: ListWriter[CopiedFile],
    changed: list[ChangedFile],
    deleted: Sequence[InStep[CopiedFile]],
) -> None:
    if any((was := files.at(file.path)) is not None and was.sha256 == file.sha256 for files in deleted):
        kept.append(file)
    else:
        changed.append(ChangedFile(file.path, file.sha256, ""))


def _hash(folder: Path, entry: SourceEntry, file: CopiedFile) -> str:
    if entry.link_target is not None:
        return hashlib.sha256(entry.link_target).hexdigest()
    as_proven = (file.size, file.mtime_ns, file.ctime_ns, file.inode)
    if entry.kind is file.kind and (entry.size, entry.mtime_ns, entry.ctime_ns, entry.inode) == as_proven:
        return file.sha256
    return SourceFiles(os.fsencode(folder)).sha256(entry)


@dataclass(frozen=True, slots=True)
class RefusedChange:
    """A change that nobody accepted. `destinations` hold the old content; none: all of them where the run is proven."""

    file: ChangedFile
    destinations: tuple[str, ...]


def changed_file_finding(located: LocatedRun, refused: RefusedChange) -> Finding:
    """`verified_file_changed`, with both hashes as AcceptChange asks for them."""
    change = refused.file
    text = change.path.decode(errors="replace")
    kind = "is of another kind, symlink or file, and " if change.new_sha256 == change.old_sha256 else ""
    what = f"{kind}has the SHA-256 {change.new_sha256} now" if change.new_sha256 else "is missing"
    where = f" at {' and '.join(refused.destinations)}" if refused.destinations else ""
    raw = bytes_unless_text(change.path)
    return Finding(
        rule=Rule.VERIFIED_FILE_CHANGED,
        tier=Tier.HARD,
        run_path=located.identity,
        offending_path=f"{located.identity}/{text}",
        offending_kind=OffendingKind.FILE_CONTENT,
        matched_token=None,
        rule_detail=f"A verified file {what}; its proven SHA-256 is {change.old_sha256}{where}.",
        offending_path_bytes=located.identity.encode() + b"/" + raw if raw else b"",
    )
