"""What became of a run's files since they were proven at a destination (SPEC §4 enqueue of a verified run)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from services.sync_engine.runs.location import LocatedRun
from services.sync_engine.transfer.source_tree import scan_run
from services.sync_engine.transfer.transport import CopiedFile, EntryKind, SourceEntry
from services.sync_engine.validation.finding import Finding, OffendingKind, Rule, Tier

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class ChangesSince:
    """Findings for files that changed or vanished, and the paths of files that were added."""

    findings: Sequence[Finding]
    added: Sequence[str]


def what_changed_since(located: LocatedRun, proven: Sequence[CopiedFile]) -> ChangesSince:
    """Compares the run as it lies there. A file whose times moved is hashed: only another content is a change."""
    now = {e.path: e for e in scan_run(located.folder) if e.kind is not EntryKind.DIRECTORY}
    before = {f.path: f for f in proven}
    findings = []
    for path, file in sorted(before.items()):
        entry = now.get(path)
        if entry is None:
            findings.append(_finding(located, path, "A verified file is missing.", file))
        elif not _is_same(located.folder, entry, file):
            findings.append(_finding(located, path, "A verified file has another content now.", file))
    added = [path.decode(errors="replace") for path in sorted(now.keys() - before.keys())]
    return ChangesSince(findings, added)


def _is_same(folder: Path, entry: SourceEntry, file: CopiedFile) -> bool:
    if entry.kind is not file.kind or entry.size != file.size:
        return False
    if entry.kind is EntryKind.SYMLINK:
        return entry.link_target == file.link_target
    if (entry.mtime_ns, entry.ctime_ns, entry.inode) == (file.mtime_ns, file.ctime_ns, file.inode):
        return True
    digest = hashlib.sha256()
    with open(os.path.join(os.fsencode(folder), entry.path), "rb", buffering=0) as content:
        while block := content.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest() == file.sha256


def _finding(located: LocatedRun, path: bytes, detail: str, file: CopiedFile) -> Finding:
    text = path.decode(errors="replace")
    exact = text.encode() == path
    return Finding(
        rule=Rule.VERIFIED_FILE_CHANGED,
        tier=Tier.HARD,
        run_path=located.identity,
        offending_path=f"{located.identity}/{text}",
        offending_kind=OffendingKind.FILE_CONTENT,
        matched_token=None,
        rule_detail=f"{detail} Its proven SHA-256 is {file.sha256}.",
        offending_path_bytes=b"" if exact else located.identity.encode() + b"/" + path,
    )
