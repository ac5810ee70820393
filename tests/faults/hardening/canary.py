"""A tree beside the configured roots that nobody may read from or write to."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.integration.sync_engine.running_engine import creation_document

CANARY = b"canary-7f3a"
"""In the content of every file there, and in the name of one; found elsewhere, it was read."""


@dataclass(frozen=True)
class Canary:
    folder: Path
    before: Mapping[str, tuple[bytes, int]]

    @classmethod
    def at(cls, folder: Path, *runs: str) -> Canary:
        """`runs`: folders below it that look like runs."""
        for run in runs:
            cache = folder / run / ".exlab-wizard"
            cache.mkdir(parents=True)
            (folder / run / "a.tif").write_bytes(CANARY)
            (folder / run / "notes.md").write_bytes(CANARY + b" {{ leftover }}")
            (folder / run / f"{CANARY.decode()}.txt").write_bytes(CANARY)
            (cache / "creation.json").write_text(
                json.dumps(creation_document(created_by=CANARY.decode())), encoding="utf-8"
            )
        return cls.of(folder)

    @classmethod
    def of(cls, folder: Path) -> Canary:
        """What lies there already."""
        return cls(folder, _tree(folder))

    def assert_untouched(self) -> None:
        """Same names, content and modification times, of the folders too."""
        assert _tree(self.folder) == self.before

    @staticmethod
    def traces_below(*folders: Path) -> list[str]:
        """Files that hold, or are called, what only the tree holds; symlinks are not followed."""
        trees = [_tree(folder) for folder in folders]
        return [n for tree in trees for n, (content, _) in tree.items() if CANARY in content or CANARY.decode() in n]


def _tree(folder: Path) -> dict[str, tuple[bytes, int]]:
    found = {}
    for parent, folders, names in os.walk(folder):
        for path in (Path(parent, name) for name in (".", *folders, *names)):
            if path.is_symlink():
                continue
            content = path.read_bytes() if path.is_file() else b""
            found[os.fspath(path)] = (content, path.stat().st_mtime_ns)
    return found
