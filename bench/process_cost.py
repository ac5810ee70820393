"""What a row's programs cost: each in a process of its own, with its processor time and its peak memory."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.carry import Carried, CarrySpec
from bench.table import Sample

_ROOT = Path(__file__).parents[1]


def carried_apart(spec: CarrySpec) -> Sample:
    """Ours: seconds from the scan to the proof. RuntimeError when it failed."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.carry", msgspec.json.encode(spec)], capture_output=True, cwd=_ROOT, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr.decode(errors="replace"))
    cost = msgspec.json.decode(done.stdout, type=Carried)
    details = msgspec.structs.asdict(cost)
    del details["seconds"], details["files"]
    return Sample(cost.seconds, details)


def run_tools(steps: Sequence[Sequence[Sequence[str]]], environment: dict[str, str] | None = None) -> Sample:
    """The peer: the commands of a step at once, the steps one after another. RuntimeError when one failed."""
    cpu, peak = 0.0, 0
    began = time.perf_counter()
    for commands in steps:
        running = [
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
            for command in commands
        ]
        for process in running:
            assert process.stderr is not None
            words = process.stderr.read()
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            process.stderr.close()
            if process.returncode != 0:
                raise RuntimeError(f"{process.args!r} ended with {process.returncode}: {words!r}")
            cpu += used.ru_utime + used.ru_stime
            peak = max(peak, used.ru_maxrss)
    return Sample(time.perf_counter() - began, {"cpu_s": cpu, "peak_mib": peak / 1024})


def cpu_seconds() -> float:
    """Processor time of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
