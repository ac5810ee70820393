"""A sync engine beside which another program replaces a run's files at the worst moments of their deletion, or that
dies right before a name goes.

`meddling.json` beside the configuration says what: `replace_before_move` and `replace_before_unlink` are names of
data files, `die_before_unlink` is one; `tombstone_before_unlink` is one before which the wizard revokes in
creation.json whatever override it finds there.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from libs.run_tree.manifest import CACHE_FOLDER
from libs.service_kit.identity import ServiceName
from libs.service_kit.run import run_service
from services.sync_engine.app import compose
from services.sync_engine.cleanup import set_aside
from services.sync_engine.errors import as_labferry_error

NEW = b"new content of "


def deleted_path(folder: bytes, name: bytes) -> bytes:
    """Under which path the run knows what goes by this name in this folder; both absolute."""
    path = set_aside.path_set_aside(name, dict)
    return folder + b"/" + name if path is None else folder.removesuffix(CACHE_FOLDER) + path


def folder_of(descriptor: int) -> bytes:
    return os.readlink(b"/proc/self/fd/%d" % descriptor)


def replace(path: bytes) -> None:
    """As programs do that write aside first."""
    with open(path + b".new", "wb") as file:
        file.write(NEW + os.path.basename(path))
    os.replace(path + b".new", path)


def revoke_all(creation: Path) -> None:
    """As the wizard does."""
    document = json.loads(creation.read_text(encoding="utf-8"))
    document["validation_overrides"] += [
        {
            "id": str(uuid.uuid4()),
            "revokes": entry["id"],
            "operator": "asmith",
            "recorded_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "reason": "no longer",
            "revoked": True,
        }
        for entry in document["validation_overrides"]
    ]
    creation.with_name("creation.json.0a.tmp").write_text(json.dumps(document), encoding="utf-8")
    os.replace(creation.with_name("creation.json.0a.tmp"), creation)


def main() -> int:
    config = Path(sys.argv[sys.argv.index("--config") + 1])
    plan: dict[str, list[str]] = json.loads(config.with_name("meddling.json").read_text(encoding="utf-8"))
    unlink, rename = os.unlink, set_aside.rename_noreplace

    def meddled_unlink(name: Any, *, dir_fd: int | None = None) -> None:
        if dir_fd is not None and isinstance(name, bytes):
            path = deleted_path(folder_of(dir_fd), name)
            if os.path.basename(path).decode() in plan["die_before_unlink"]:
                os.kill(os.getpid(), signal.SIGKILL)
            if os.path.basename(path).decode() in plan["replace_before_unlink"]:
                replace(path)
            if os.path.basename(path).decode() in plan["tombstone_before_unlink"]:
                revoke_all(Path(os.fsdecode(path)).parent / os.fsdecode(CACHE_FOLDER) / "creation.json")
        unlink(name, dir_fd=dir_fd)

    def meddled_rename(source_folder: int, source: bytes, target_folder: int, target: bytes) -> None:
        if source.decode(errors="replace") in plan["replace_before_move"]:
            replace(folder_of(source_folder) + b"/" + source)
        rename(source_folder, source, target_folder, target)

    os.unlink = meddled_unlink  # type: ignore[assignment]
    set_aside.rename_noreplace = meddled_rename
    return run_service(ServiceName.SYNC_ENGINE, compose, as_labferry_error)


if __name__ == "__main__":
    sys.exit(main())
