"""The folder at the destination in which one attempt of one job puts files together before they get their names."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import threading
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from libs.run_tree.beneath import open_beneath
from services.sync_engine.transfer.destination_root import DestinationRoot
from services.sync_engine.transfer.system_error import destination_error
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import TransferError

INCOMING = b".labferry-incoming"
CHECK_FILE = INCOMING + b"/check"
"""One name for all: what a killed engine leaves of its check is removed by the next one's."""


def incoming_folder(job_id: str, attempt: int) -> str:
    """Where that attempt puts files together, below the equipment's folder at the destination."""
    return f"{os.fsdecode(INCOMING)}/{job_id}-{attempt}"


def partial_folder(job: bytes) -> bytes:
    """Where a job keeps what arrived of the file in work, from one attempt to the next; `job` is what its incoming
    folders are called without the attempt. Nothing in it ever gets a name of the run."""
    return job + b"-partial"


class IncomingName(NamedTuple):
    """A name in an open folder."""

    folder: int
    number: bytes


class NewNames(Protocol):
    """Where files are put together."""

    def new_name(self) -> IncomingName:
        """A name that nothing there has, in an open folder."""


class IncomingFolder:
    """Made empty, and removed at an orderly end; what a killed process leaves is swept by the job's next attempt."""

    def __init__(self, root: DestinationRoot, job_id: str, attempt: int, control: TransferControl) -> None:
        self._root = root
        self._control = control
        self.path = os.fsencode(incoming_folder(job_id, attempt))
        self._numbers = itertools.count()
        self._own = threading.local()
        self._subfolders: list[int] = []
        if root.status(self.path) is not None:
            remove_tree(root, self.path, control.look)
        root.ensure_folder(self.path)
        try:
            self.fd = root.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise destination_error(error, "opening the incoming folder") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for descriptor in (*self._subfolders, self.fd):
            os.close(descriptor)
        # What ended the attempt is what matters; leftovers are swept by the next one.
        with contextlib.suppress(TransferError):
            remove_tree(self._root, self.path, self._control.alive)

    def new_name(self) -> IncomingName:
        """A name that nothing here has, and its folder, open as long as this one; names of the run never appear here.
        Any thread may ask."""
        # Each thread has a subfolder: in a common one they would wait for each other with every file they make.
        subfolder: int | None = getattr(self._own, "subfolder", None)
        if subfolder is None:
            subfolder = self._own.subfolder = self.new_subfolder()
        return IncomingName(subfolder, b"%d" % next(self._numbers))

    def new_subfolder(self) -> int:
        """An open folder in which nobody else makes names; it is closed with this one. TransferError."""
        name = b"%d" % next(self._numbers)
        try:
            os.mkdir(name, dir_fd=self.fd)
            descriptor = open_beneath(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=self.fd)
        except OSError as error:
            raise destination_error(error, "making an incoming folder") from error
        self._subfolders.append(descriptor)
        return descriptor


def sweep_incoming(root: DestinationRoot, job_id: str, *, keep_attempt: int | None, control: TransferControl) -> None:
    """Removes the incoming folders of the job's other attempts. TransferError, TransferStoppedError."""
    if root.status(INCOMING) is None:
        return
    own = re.compile(re.escape(os.fsencode(job_id)) + rb"-(\d+)")
    try:
        descriptor = root.open(INCOMING, os.O_RDONLY | os.O_DIRECTORY)
        try:
            names = [os.fsencode(name) for name in os.listdir(descriptor)]
        finally:
            os.close(descriptor)
    except OSError as error:
        raise destination_error(error, "listing", INCOMING) from error
    for name in names:
        attempt = own.fullmatch(name)
        if attempt is not None and int(attempt[1]) != keep_attempt:
            remove_tree(root, INCOMING + b"/" + name, control.look)


def remove_tree(root: DestinationRoot, relative: bytes, heard: Callable[[], None] = lambda: None) -> None:
    """A folder of the incoming one with all that is in it; none is well. `heard` is called at each name, and may raise
    to end it. TransferError."""
    try:
        with root.folder_of(relative) as (folder, name):
            for _, folders, files, opened in os.fwalk(os.fsdecode(name), topdown=False, onerror=_raise, dir_fd=folder):
                for file in files:
                    heard()
                    os.unlink(file, dir_fd=opened)
                for below in folders:
                    _remove_empty(below, opened)
            os.rmdir(name, dir_fd=folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise destination_error(error, "removing", relative) from error


def _remove_empty(name: str, folder: int) -> None:
    try:
        os.rmdir(name, dir_fd=folder)
    except NotADirectoryError:
        # A symlink to a folder.
        os.unlink(name, dir_fd=folder)


def _raise(error: OSError) -> None:
    raise error
