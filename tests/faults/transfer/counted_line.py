"""A line to a server on this machine that counts what goes there, and breaks after so many bytes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_PIECE = 1 << 16


class CountedLine:
    """`sent`: bytes that went to the server since the line was opened or last counted anew."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.port: int = self._listener.getsockname()[1]
        self.sent = 0
        self.breaks_after: int | None = None

    def run(self) -> None:
        """Until it is closed."""
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                self._ends += [client, server]
                for source, target, counts in ((client, server, True), (server, client, False)):
                    self._begin(threading.Thread(target=self._pass_on, args=(source, target, counts)))

    def _begin(self, thread: threading.Thread) -> None:
        self._threads.append(thread)
        thread.start()

    def _pass_on(self, source: socket.socket, target: socket.socket, counts: bool) -> None:
        with suppress(OSError):
            while piece := source.recv(_PIECE):
                if counts:
                    self.sent += len(piece)
                    if self.breaks_after is not None and self.sent > self.breaks_after:
                        self.breaks_after = None
                        self.cut()
                        return
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        """Breaks every connection; new ones are let through."""
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def refuse(self) -> None:
        """No further connection is let through."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def close(self) -> None:
        """Ends what was let through."""
        self.cut()
        for thread in self._threads:
            thread.join()
        for end in self._ends:
            end.close()


@contextmanager
def counted_line(server_port: int) -> Iterator[CountedLine]:
    line = CountedLine(server_port)
    accepting = threading.Thread(target=line.run)
    accepting.start()
    try:
        yield line
    finally:
        line.refuse()
        accepting.join()
        line.close()
