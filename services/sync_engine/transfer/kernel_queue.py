"""Requests for many open files, handed to the kernel together (its asynchronous I/O): it works on them side by side."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

AT_ONCE = 64
"""Requests that are in work together; more are handed over one such number after the other."""
_POINTER_BYTES = ctypes.sizeof(ctypes.c_void_p)
_call = ctypes.CDLL(None, use_errno=True).syscall
_call.restype = ctypes.c_long


class Operation(IntEnum):
    """What is asked of the kernel, by its own numbers."""

    READ = 0
    SYNC = 2


class Request(NamedTuple):
    """Of an open file. A READ begins at the file's begin and fills `nbytes` from `address` on, which stay the caller's
    to keep until the answer is there."""

    descriptor: int
    operation: Operation
    address: int = 0
    nbytes: int = 0


@dataclass(frozen=True, slots=True)
class _Calls:
    """Numbers in the table of system calls."""

    setup: int
    destroy: int
    submit: int
    getevents: int


# Of programs of 64 bits; those of 32 have other numbers on the same machine.
_CALLS = (
    {"x86_64": _Calls(206, 207, 209, 208), "aarch64": _Calls(0, 1, 2, 4)}.get(platform.machine())
    if _POINTER_BYTES == 8
    else None
)


class _ControlBlock(ctypes.Structure):
    """`struct iocb` of linux/aio_abi.h, of little-endian machines."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("key", ctypes.c_uint32),
        ("rw_flags", ctypes.c_int32),
        ("opcode", ctypes.c_uint16),
        ("priority", ctypes.c_int16),
        ("descriptor", ctypes.c_uint32),
        ("buffer", ctypes.c_uint64),
        ("nbytes", ctypes.c_uint64),
        ("offset", ctypes.c_int64),
        ("reserved", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("event_descriptor", ctypes.c_uint32),
    )


class _Answer(ctypes.Structure):
    """`struct io_event`; `result` is what the plain call returns, or the negative errno."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("request", ctypes.c_uint64),
        ("result", ctypes.c_int64),
        ("result2", ctypes.c_int64),
    )


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_int64), ("nanoseconds", ctypes.c_int64))


# How long is waited for all answers; after that, those that there are.
_LOOK = _Timespec(1, 0)


class _Queue:
    """A place of the kernel for requests in work; one thread at a time. OSError where there is none to be had."""

    def __init__(self, calls: _Calls) -> None:
        self._calls = calls
        self._blocks = (_ControlBlock * AT_ONCE)()
        addresses = [ctypes.addressof(block) for block in self._blocks]
        self._addresses = (ctypes.c_void_p * AT_ONCE)(*addresses)
        self._answers = (_Answer * AT_ONCE)()
        self._number = ctypes.c_ulong(0)
        if _call(calls.setup, ctypes.c_long(AT_ONCE), ctypes.byref(self._number)) != 0:
            raise _said()
        none = ctypes.c_long(0)
        if _call(calls.getevents, self._number, none, none, None, ctypes.byref(_LOOK)) != 0:
            # A filter that lets requests in and no answer out.
            refusal = _said()
            _call(calls.destroy, self._number)
            raise refusal

    def handle(self, requests: Sequence[Request], heard: Callable[[], None]) -> list[int | None]:
        """Returns when none is in work any more."""
        for number, request in enumerate(requests):
            block = self._blocks[number]
            block.data, block.opcode, block.descriptor = number, request.operation, request.descriptor
            block.buffer, block.nbytes = request.address, request.nbytes
        results: list[int | None] = [None] * len(requests)
        begun = in_work = 0
        while begun < len(requests):
            taken = self._submit(begun, len(requests) - begun)
            # A file that the kernel doesn't take so, or no room there, is left out.
            begun, in_work = begun + max(1, taken), in_work + taken
        while in_work:
            answered = self._await(in_work, results)
            in_work -= answered
            if answered:
                heard()
        return results

    def _submit(self, first: int, count: int) -> int:
        taken: int = _call(
            self._calls.submit,
            self._number,
            ctypes.c_long(count),
            ctypes.byref(self._addresses, first * _POINTER_BYTES),
        )
        return max(0, taken)

    def _await(self, count: int, results: list[int | None]) -> int:
        wanted = ctypes.c_long(count)
        got: int = _call(self._calls.getevents, self._number, wanted, wanted, self._answers, ctypes.byref(_LOOK))
        if got < 0:
            refusal = _said()
            if refusal.errno != errno.EINTR:
                raise refusal
        for answer in self._answers[: max(0, got)]:
            results[answer.data] = answer.result
        return max(0, got)


# Kept for the next one, whatever thread that is.
_idle: deque[_Queue] = deque()


def handle_together(requests: Sequence[Request], heard: Callable[[], None] = lambda: None) -> list[int | None]:
    """Of each what the plain call would return, or the negative errno; None where the kernel did not take it so, and
    nothing was done: another machine, a container's filter, too many in use by others. `heard` is called as long as
    some are answered, and must not raise. Any thread may call it."""
    queue = _queue()
    if queue is None:
        return [None] * len(requests)
    results: list[int | None] = []
    for start in range(0, len(requests), AT_ONCE):
        results += queue.handle(requests[start : start + AT_ONCE], heard)
    _idle.append(queue)
    return results


def _queue() -> _Queue | None:
    if _CALLS is None:
        return None
    try:
        return _idle.pop()
    except IndexError:
        pass
    try:
        return _Queue(_CALLS)
    except OSError:
        return None


def _said() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
