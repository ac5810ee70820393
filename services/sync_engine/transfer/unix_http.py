"""HTTP to a server that listens on a Unix socket."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path


class UnixHttpConnection(http.client.HTTPConnection):
    """As its base class, but that the address is a socket's path."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))
