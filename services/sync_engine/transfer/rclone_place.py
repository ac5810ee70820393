"""Opening sessions with a remote."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from services.sync_engine.transfer.bandwidth import Bandwidth, SharedBandwidth
from services.sync_engine.transfer.rclone_far import RcloneFar
from services.sync_engine.transfer.rclone_remote import RcloneRemote
from services.sync_engine.transfer.rclone_start import open_rclone
from services.sync_engine.transfer.rclone_uploads import RefusalNote
from services.sync_engine.transfer.tools import Toolbox
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import FailureKind, TransferError


class RclonePlace:
    """A folder of a remote."""

    def __init__(self, remote: RcloneRemote, *, tools: Toolbox, bandwidth: Bandwidth) -> None:
        self.tools = tools
        self._remote = remote
        self._uploads_refused = RefusalNote()
        self.bandwidth = SharedBandwidth(bandwidth)

    @contextmanager
    def open(self, control: TransferControl, most_seconds: float | None = None) -> Iterator[RcloneFar]:
        """As `FarPlace.open`."""
        self.tools.require()
        remote = self._remote
        with open_rclone(remote.config, control, self.bandwidth, remote.config_password) as daemon:
            daemon.end_at(most_seconds)
            if not daemon.must("reading its configuration", "config/get", name=self._remote.name):
                raise TransferError(
                    FailureKind.CONFIGURATION, f"rclone's configuration has no remote {self._remote.name!r}"
                )
            yield RcloneFar(daemon, self._remote, self._uploads_refused)
