"""`python -m bench.carry SPEC`: carries one run by one transport in a process of its own, and prints what that cost.

A process of its own, because peak memory is a process's: the figures of one carrying don't hold those of the last.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from pathlib import Path, PurePosixPath

import msgspec

from services.sync_engine.transfer.bandwidth import UNLIMITED
from services.sync_engine.transfer.mounted import MountedTransport
from services.sync_engine.transfer.rclone_place import RclonePlace
from services.sync_engine.transfer.rclone_remote import RcloneRemote
from services.sync_engine.transfer.remote_transport import RemoteTransport
from services.sync_engine.transfer.rsync_far import RsyncPlace
from services.sync_engine.transfer.second_process.process import SecondProcess
from services.sync_engine.transfer.source_tree import scan_run
from services.sync_engine.transfer.ssh_session import SshAccess
from services.sync_engine.transfer.tools import RCLONE, RSYNC, SSH, Toolbox
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import ProgressPhase, Transport

RUN = "Run_2026-04-17T14-32"
"""What the run is called at the destination, in `project/Runs`."""
_MAX_STREAM_BYTES = 1 << 40


class CarrySpec(msgspec.Struct, frozen=True):
    """What to carry and how. `rclone`: remote, path there, configuration. `ssh`: target, key, port, known hosts.
    Neither: mounted."""

    source: str
    destination: str
    rclone: tuple[str, str, str] | None = None
    ssh: tuple[str, str, int, str] | None = None


class Carried(msgspec.Struct, frozen=True):
    """Seconds of the whole, of the copy and of the verification; processor seconds of this process and of its tools;
    peak memory in MiB of this process and of the largest tool, which counts what this process had when it began it."""

    files: int
    seconds: float
    copy_s: float
    verify_s: float
    cpu_s: float
    peak_mib: float
    tool_peak_mib: float


class NoProgress:
    """Nobody watches."""

    def begin(self, phase: ProgressPhase, files_total: int, bytes_total: int) -> None:
        """Nobody watches."""

    def advance(self, files: int, nbytes: int, current: bytes) -> None:
        """Nobody watches."""


def _open(spec: CarrySpec, second: SecondProcess) -> Transport:
    if spec.rclone is not None:
        name, path, config = spec.rclone
        remote = RcloneRemote(name, path, Path(config))
        rclone = RclonePlace(remote, tools=Toolbox((RCLONE,)), bandwidth=UNLIMITED)
        return RemoteTransport(rclone, max_stream_bytes=_MAX_STREAM_BYTES)
    if spec.ssh is not None:
        target, key, port, known_hosts = spec.ssh
        access = SshAccess(target, Path(key), port, Path(known_hosts))
        tools = Toolbox((RSYNC, SSH))
        rsync = RsyncPlace(access, spec.destination, tools=tools, bandwidth=UNLIMITED)
        return RemoteTransport(rsync, max_stream_bytes=_MAX_STREAM_BYTES)
    return MountedTransport(Path(spec.destination), second=second)


def carry(spec: CarrySpec) -> Carried:
    """Scan, name plan, copy, landing and verification, as the engine calls them; no event log behind it."""
    second = SecondProcess()
    transport, source = _open(spec, second), Path(spec.source)
    target, control, progress = PurePosixPath("project/Runs", RUN), TransferControl(), NoProgress()
    if isinstance(transport, MountedTransport):
        # In a running engine it was started by the first large run, and is there for all others.
        while not second.is_ready():
            time.sleep(0.01)
    began = time.perf_counter()
    copied = transport.copy(
        source,
        scan_run(source),
        target=target,
        job_id="bench",
        attempt=1,
        landed=(),
        before_landing=lambda batch: None,
        control=control,
        progress=progress,
    )
    copied_at = time.perf_counter()
    outcome = transport.verify(target, copied, control=control, progress=progress)
    ended = time.perf_counter()
    if not outcome.proven:
        raise RuntimeError(f"{outcome.matched} of {outcome.expected} files were proven")
    second.close()
    own, tools = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return Carried(
        files=outcome.matched,
        seconds=ended - began,
        copy_s=copied_at - began,
        verify_s=ended - copied_at,
        cpu_s=own.ru_utime + own.ru_stime + tools.ru_utime + tools.ru_stime,
        peak_mib=peak_mib(os.getpid()),
        tool_peak_mib=tools.ru_maxrss / 1024,
    )


def peak_mib(process: int) -> float:
    """By the kernel's count for its program alone: `ru_maxrss` begins with what the process that started it had."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    print(msgspec.json.encode(carry(msgspec.json.decode(sys.argv[1], type=CarrySpec))).decode())
