"""A server that answers as the published HTTP API of OpenBao says: a KV engine of version 2, logins, the seal.

`python -m tests.integration.secrets.openbao_server FILE [PORT [FOLDER]]` serves on a port of its own, which it prints,
and keeps its content in FILE; in TLS with the certificate in FOLDER. What lies below /test is how a test plays the
operator of that server.
"""

from __future__ import annotations

import json
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from libs.service_kit.certificate_authority import CERTIFICATE, KEY

MOUNT = "lab"
CREATED = "2026-01-31T12:00:00.000000000Z"


class Content:
    """Paths with all their versions, the tokens that count, and what the server is told to be like."""

    def __init__(self, file: Path) -> None:
        self.file = file
        kept = json.loads(file.read_text()) if file.exists() else {}
        self.versions: dict[str, list[str | None]] = kept.get("versions", {})
        self.tokens: list[str] = kept.get("tokens", ["first-token"])
        self.logins: list[str] = kept.get("logins", [])
        self.sealed = False
        self.ttl = 0
        self.renewals = 0
        self.before_write: str | None = None

    def keep(self) -> None:
        self.file.write_text(json.dumps({"versions": self.versions, "tokens": self.tokens, "logins": self.logins}))

    def new_token(self, login: str) -> dict[str, Any]:
        token = f"token-{len(self.logins)}"
        self.logins.append(login)
        self.tokens.append(token)
        return {"auth": {"client_token": token, "lease_duration": self.ttl, "renewable": self.ttl > 0}}


class Handler(BaseHTTPRequestHandler):
    content: Content
    protocol_version = "HTTP/1.1"

    def answer(self, status: int, body: dict[str, Any] | None = None) -> None:
        data = json.dumps(body).encode() if body is not None else b""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, status: int, *errors: str) -> None:
        self.answer(status, {"errors": list(errors)})

    def serve(self) -> None:
        content, path = self.content, unquote(urlsplit(self.path).path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        if path == "/test":
            for name, value in body.items():
                setattr(content, name, value)
            content.keep()
            self.answer(200, {name: getattr(content, name) for name in ("versions", "tokens", "logins", "renewals")})
        elif content.sealed:
            self.refuse(503, "Vault is sealed")
        elif path.startswith("/v1/auth/") and path.endswith("/login"):
            self.log_in(path, body)
        elif self.headers.get("X-Vault-Token") not in content.tokens:
            self.refuse(403, "permission denied")
        elif path == "/v1/auth/token/lookup-self":
            self.answer(200, {"data": {"ttl": content.ttl, "renewable": content.ttl > 0}})
        elif path == "/v1/auth/token/renew-self":
            content.renewals += 1
            token = self.headers["X-Vault-Token"]
            self.answer(
                200, {"auth": {"client_token": token, "lease_duration": content.ttl, "renewable": content.ttl > 0}}
            )
        elif path.startswith(f"/v1/{MOUNT}/data/"):
            self.data(path.removeprefix(f"/v1/{MOUNT}/data/"), body)
        elif path.startswith(f"/v1/{MOUNT}/metadata/"):
            self.metadata(path.removeprefix(f"/v1/{MOUNT}/metadata/"))
        else:
            self.refuse(404, f'no handler for route "{path.removeprefix("/v1/")}". route entry not found.')

    do_GET = do_POST = do_PUT = do_DELETE = do_LIST = serve

    def log_in(self, path: str, body: dict[str, Any]) -> None:
        right = body in ({"role_id": "labferry", "secret_id": "s-1"}, {"role": "labferry", "jwt": "j-1"})
        if not right:
            self.refuse(400, "invalid role or secret ID")
            return
        self.answer(200, self.content.new_token(path))
        self.content.keep()

    def data(self, path: str, body: dict[str, Any]) -> None:
        content = self.content
        if self.command in ("POST", "PUT"):
            if content.before_write is not None:
                # Another program is quicker.
                content.versions.setdefault(path, []).append(content.before_write)
                content.before_write = None
            versions = content.versions.setdefault(path, [])
            if body["options"]["cas"] != len(versions):
                self.refuse(400, "check-and-set parameter did not match the current version")
                return
            versions.append(json.dumps(body["data"]))
            content.keep()
            self.answer(200, {"data": self.about(path)})
            return
        found = content.versions.get(path)
        if not found:
            self.refuse(404)
        elif found[-1] is None:
            self.answer(404, {"data": {"data": None, "metadata": {**self.about(path), "deletion_time": CREATED}}})
        else:
            self.answer(200, {"data": {"data": json.loads(found[-1]), "metadata": self.about(path)}})

    def metadata(self, path: str) -> None:
        content = self.content
        if self.command == "DELETE":
            content.versions.pop(path, None)
            content.keep()
            self.answer(204)
            return
        folder = path.rstrip("/") + "/"
        keys = sorted(name.removeprefix(folder) for name in content.versions if name.startswith(folder))
        if keys:
            self.answer(200, {"data": {"keys": keys}})
        else:
            self.refuse(404)

    def about(self, path: str) -> dict[str, Any]:
        version = len(self.content.versions[path])
        return {"created_time": CREATED, "deletion_time": "", "destroyed": False, "version": version}

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""


def main() -> None:
    Handler.content = Content(Path(sys.argv[1]))
    port = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    if len(sys.argv) > 3:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(Path(sys.argv[3], CERTIFICATE), Path(sys.argv[3], KEY))
        server.socket = context.wrap_socket(server.socket, server_side=True)
    print(server.server_address[1], flush=True)  # noqa: T201
    server.serve_forever()


if __name__ == "__main__":
    main()
