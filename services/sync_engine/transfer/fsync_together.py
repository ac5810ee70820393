"""Making several files durable at once.

One fsync after the other asks the disk once for each file to write out its cache. Handed to the kernel together (its
asynchronous I/O), many of them share one such request; each still answers for its own file.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

_AT_ONCE = 64
_FSYNC = 2
_POINTER_BYTES = ctypes.sizeof(ctypes.c_void_p)
_call = ctypes.CDLL(None, use_errno=True).syscall
_call.restype = ctypes.c_long


@dataclass(frozen=True, slots=True)
class _Calls:
    """Numbers in the table of system calls."""

    setup: int
    submit: int
    getevents: int


_CALLS = {"x86_64": _Calls(206, 209, 208), "aarch64": _Calls(0, 2, 4)}.get(platform.machine())


class _Request(ctypes.Structure):
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
    """`struct io_event`; `result` is 0 or the negative errno."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("request", ctypes.c_uint64),
        ("result", ctypes.c_int64),
        ("result2", ctypes.c_int64),
    )


class _Queue:
    """A place of the kernel for requests in work; one thread at a time. OSError where there is none to be had."""

    def __init__(self, calls: _Calls) -> None:
        self._calls = calls
        self._requests = (_Request * _AT_ONCE)()
        addresses = [ctypes.addressof(request) for request in self._requests]
        self._addresses = (ctypes.c_void_p * _AT_ONCE)(*addresses)
        self._answers = (_Answer * _AT_ONCE)()
        self._number = ctypes.c_ulong(0)
        if _call(calls.setup, ctypes.c_long(_AT_ONCE), ctypes.byref(self._number)) != 0:
            raise _said()

    def fsync(self, descriptors: Sequence[int]) -> list[OSError | None]:
        """Returns when none is in work any more."""
        for number, descriptor in enumerate(descriptors):
            request = self._requests[number]
            request.data, request.opcode, request.descriptor = number, _FSYNC, descriptor
        errors: list[OSError | None] = [None] * len(descriptors)
        begun = in_work = 0
        while begun < len(descriptors):
            taken = self._submit(begun, len(descriptors) - begun)
            if taken == 0:
                # A file that the kernel doesn't take so, or no room there: the plain call says what is the matter.
                errors[begun] = _fsync(descriptors[begun])
                begun += 1
            begun, in_work = begun + taken, in_work + taken
        while in_work:
            in_work -= self._await(in_work, errors)
        return errors

    def _submit(self, first: int, count: int) -> int:
        taken: int = _call(
            self._calls.submit,
            self._number,
            ctypes.c_long(count),
            ctypes.byref(self._addresses, first * _POINTER_BYTES),
        )
        return max(0, taken)

    def _await(self, count: int, errors: list[OSError | None]) -> int:
        wanted = ctypes.c_long(count)
        got: int = _call(self._calls.getevents, self._number, wanted, wanted, self._answers, None)
        if got < 0:
            refusal = _said()
            if refusal.errno != errno.EINTR:
                raise refusal
        for answer in self._answers[: max(0, got)]:
            if answer.result:
                errors[answer.data] = OSError(-answer.result, os.strerror(-answer.result))
        return max(0, got)


# Kept for the next one, whatever thread that is.
_idle: deque[_Queue] = deque()


def fsync_together(descriptors: Sequence[int]) -> list[OSError | None]:
    """Makes open files durable; of each what the system said, None if it is. Any thread may call it."""
    queue = _queue() if len(descriptors) > 1 else None
    if queue is None:
        return [_fsync(descriptor) for descriptor in descriptors]
    errors: list[OSError | None] = []
    for start in range(0, len(descriptors), _AT_ONCE):
        errors += queue.fsync(descriptors[start : start + _AT_ONCE])
    _idle.append(queue)
    return errors


def _queue() -> _Queue | None:
    """None where the kernel has none: another machine, a container's filter, or too many in use by others."""
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


def _fsync(descriptor: int) -> OSError | None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        return error
    return None


def _said() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
