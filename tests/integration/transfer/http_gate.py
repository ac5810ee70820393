"""A server that refuses some requests, as storages of the web do in ways that `rclone serve` can't be brought to."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Gate:
    """Its port, and what is found in the first line of requests that it refuses; it may be changed at any time.
    `asked`: the first lines of all requests. `before` hears each that is about to go on, and may hold it."""

    def __init__(self, port: int, refuses: str) -> None:
        self.port = port
        self.refuses = re.compile(refuses)
        self.asked: list[str] = []
        self.before: Callable[[str], None] = lambda line: None


@contextmanager
def gate_before(port: int, refuses: str, status: int, words: bytes) -> Iterator[Gate]:
    """In front of a real server, to which everything else goes. A refusal is answered with this XML."""

    class Passing(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Headers and content are two packets, and the second would wait 40 ms for the first.
        disable_nagle_algorithm = True

        def pass_on(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            gate.asked.append(self.requestline)
            if gate.refuses.search(self.requestline):
                self._answer(status, {"Content-Type": "application/xml"}, words)
                return
            gate.before(self.requestline)
            behind = HTTPConnection("127.0.0.1", port)
            # With its `Host`, which is signed.
            behind.request(self.command, self.path, content, dict(self.headers))
            answer = behind.getresponse()
            headers = {name: value for name, value in answer.getheaders() if name != "Transfer-Encoding"}
            self._answer(answer.status, headers, answer.read())
            behind.close()

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = pass_on
        do_PROPFIND = do_PROPPATCH = do_MKCOL = do_MOVE = do_COPY = do_OPTIONS = pass_on

        def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name != "Content-Length":
                    self.send_header(name, value)
            length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(content))
            self.send_header("Content-Length", length)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Tests say what is wrong themselves."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Passing) as server:
        gate = Gate(server.server_port, refuses)
        threading.Thread(target=server.serve_forever).start()
        try:
            yield gate
        finally:
            server.shutdown()
