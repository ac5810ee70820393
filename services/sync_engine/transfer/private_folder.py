"""A folder for what a tool must be told in files: nobody else's to read, and gone with the work."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from libs.event_log.own_disk import on_own_disk

_PREFIX = "labferry-tool-"
_NAME = re.compile(re.escape(_PREFIX) + r"(\d+)-.*")


@contextmanager
def private_folder() -> Iterator[Path]:
    """Mode 0700; removed at the end. What killed engines left is removed here too. Errors of `on_own_disk`."""
    remove_orphans()
    # Its path is short: sockets lie in it, whose addresses hold about a hundred characters.
    with on_own_disk():
        folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_private(path: Path, content: Iterable[bytes]) -> None:
    """A new file with mode 0600, of these pieces. Errors of `on_own_disk`."""
    with on_own_disk():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.writelines(content)


def remove_orphans() -> None:
    """What killed engines left: a configuration with passwords may be among it."""
    for entry in os.scandir(tempfile.gettempdir()):
        owner = _NAME.fullmatch(entry.name)
        if owner is None:
            continue
        with suppress(OSError):
            if entry.stat(follow_symlinks=False).st_uid == os.geteuid() and not Path(f"/proc/{owner[1]}").exists():
                shutil.rmtree(entry.path, ignore_errors=True)
