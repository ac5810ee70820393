"""A lane: one connection between the engine and its second process, on which one thread of each side works."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Callable

_LENGTH = struct.Struct(">I")
_SEND_SECONDS = 10.0
_END_SECONDS = 2.0
_LOOK_SECONDS = 0.2


class LaneBrokenError(Exception):
    """The other side is gone, or doesn't answer."""


class Lane:
    """One end; one thread at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._connection.settimeout(_SEND_SECONDS)
        self._arrives = select.poll()
        self._arrives.register(connection, select.POLLIN)

    def send(self, message: bytes) -> None:
        """LaneBrokenError."""
        try:
            self._connection.sendall(_LENGTH.pack(len(message)) + message)
        except OSError as error:
            raise LaneBrokenError("sending") from error

    def receive(self, waiting: Callable[[], None] = lambda: None) -> bytes:
        """The next message. `waiting` is called again and again until it comes, and may raise to end that.
        LaneBrokenError."""
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size, waiting))
        return self._exactly(length, waiting)

    def end(self) -> None:
        """Returns when the other side has let go of all that it had open for this lane, if it answers."""
        try:
            self._connection.shutdown(socket.SHUT_WR)
        except OSError:
            # The other side was quicker.
            pass
        else:
            self._arrives.poll(_END_SECONDS * 1000)
        self.close()

    def close(self) -> None:
        """The other side hears of it when it next listens."""
        self._connection.close()

    def _exactly(self, length: int, waiting: Callable[[], None]) -> bytes:
        received = bytearray()
        while len(received) < length:
            while not self._arrives.poll(_LOOK_SECONDS * 1000):
                waiting()
            try:
                piece = self._connection.recv(length - len(received))
            except OSError as error:
                raise LaneBrokenError("receiving") from error
            if not piece:
                raise LaneBrokenError("it was closed")
            received += piece
        return bytes(received)
