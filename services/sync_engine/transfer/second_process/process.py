"""The engine's end of its second process: it is started when a large run first wants it, and ends with the engine."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from libs.service_kit.version import LABFERRY_VERSION
from services.sync_engine.transfer.second_process.lane import Lane
from services.sync_engine.transfer.second_process.messages import ENCODER, MOST_REQUEST_BYTES, LaneRequest

_LOGGER = logging.getLogger(__name__)
_PROGRAM = "services.sync_engine.transfer.second_process"
_START_AGAIN_SECONDS = 60.0
_END_SECONDS = 2.0


class SecondProcess:
    """Any thread may use it. Nothing is started before it is asked for."""

    def __init__(
        self,
        *,
        fewest_files: int = 1000,
        patience_seconds: float = 60.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`fewest_files`: of a piece of work, below which it isn't asked. `patience_seconds`: after so long without an
        answer it is taken to hang. A chunk takes milliseconds; a disk on which it takes longer keeps others waiting
        too."""
        self.fewest_files = fewest_files
        self.patience_seconds = patience_seconds
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._running: _Running | None = None
        self._not_before = 0.0
        # With one processor it would only take turns with this one.
        self._closed = len(os.sched_getaffinity(0)) < 2

    def is_ready(self) -> bool:
        """Whether it takes requests. When there is none it is started, but not sooner than a minute after the last."""
        with self._lock:
            running = self._living() or self._start()
            return running is not None and running.says_ready()

    @property
    def process(self) -> int | None:
        """Its process number, while there is one."""
        with self._lock:
            running = self._living()
            return None if running is None else running.process.pid

    def lane(self, request: LaneRequest, folder: int) -> Lane | None:
        """A lane to it; the caller ends it. None when there can't be one now."""
        message = ENCODER.encode(request)
        with self._lock:
            running = self._living()
            if running is None or len(message) > MOST_REQUEST_BYTES:
                return None
            try:
                ours, theirs = socket.socketpair()
            except OSError as error:
                _LOGGER.warning("working without the second process for small files: %s", error)
                return None
            with theirs:
                try:
                    socket.send_fds(running.control, [message], [theirs.fileno(), folder])
                except OSError:
                    # It ended just now, or listens to nobody; it is told of when it is looked for next.
                    ours.close()
                    return None
        return Lane(ours)

    def give_up(self) -> None:
        """It doesn't answer, or not as it should: ends it. Its other lanes break."""
        with self._lock:
            running = self._running
        if running is not None:
            running.end()

    def close(self) -> None:
        """Ends it, and it isn't started again."""
        with self._lock:
            self._closed = True
            running, self._running = self._running, None
        if running is not None:
            running.control.close()
            running.end()

    def _living(self) -> _Running | None:
        if self._running is not None and (code := self._running.process.poll()) is not None:
            _LOGGER.warning(
                "the second process for small files (%d) ended with %d; another is started",
                self._running.process.pid,
                code,
            )
            self._running.control.close()
            self._running = None
        return self._running

    def _start(self) -> _Running | None:
        if self._closed or self._monotonic() < self._not_before:
            return None
        self._not_before = self._monotonic() + _START_AGAIN_SECONDS
        try:
            self._running = _Running()
        except OSError as error:
            _LOGGER.warning("working without the second process for small files: %s", error)
            return None
        _LOGGER.info("started a second process for small files (%d)", self._running.process.pid)
        return self._running


class _Running:
    """One such process."""

    def __init__(self) -> None:
        """OSError."""
        # Messages stay whole, and nobody else has either end: when one side is gone the other reads the end.
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.setblocking(False)
        self._ready = False
        try:
            with theirs:
                self.process = subprocess.Popen(
                    [sys.executable, "-P", "-m", _PROGRAM, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(place for place in sys.path if place)},
                    cwd="/",
                    start_new_session=True,
                )
        except OSError:
            self.control.close()
            raise

    def says_ready(self) -> bool:
        """After a moment of its own. What was installed anew since the engine started is another program, and ended."""
        if not self._ready:
            try:
                version = self.control.recv(MOST_REQUEST_BYTES)
            except OSError:
                return False
            if version != LABFERRY_VERSION.encode():
                self.process.kill()
                return False
            self._ready = True
        return True

    def end(self) -> None:
        """Nothing that it could be at is of use any more."""
        self.process.kill()
        # A disk that hangs keeps it until the kernel is through with that.
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(_END_SECONDS)
