"""Progress of a reading back that keeps to its destination's bandwidth: audits must not fill the line (SPEC §4)."""

from __future__ import annotations

from services.sync_engine.transfer.bandwidth import BandwidthBrake
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import Progress, ProgressPhase


class BrakedProgress:
    """Passes everything on; whoever has read more than the limit allows waits here for its turn."""

    def __init__(self, progress: Progress, brake: BandwidthBrake, control: TransferControl) -> None:
        self._progress = progress
        self._brake = brake
        self._control = control

    def begin(self, phase: ProgressPhase, files_total: int, bytes_total: int) -> None:
        self._progress.begin(phase, files_total, bytes_total)

    def advance(self, files: int, nbytes: int, current: bytes) -> None:
        """As `Progress.advance`; TransferStoppedError when the reading is to end."""
        self._progress.advance(files, nbytes, current)
        self._brake.take(nbytes, self._control)
