"""A LIMS over real HTTP, for the demo and the tests: python -m cli.demo.lims_server --email E --password-file F

It serves the REST contract of SPEC §6 on loopback, remembers every request, and can be told to misbehave:
POST /_control/mode {"mode": "html"} · POST /_control/projects {"projects": [row, …]}
GET /_control/requests · DELETE /_control/requests
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import signal
import socket
import sys
from asyncio import Transport
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from cli.demo.lims_projects import Row, make_rows

_COOKIE = "lims_session"
_SLOW_SECONDS = 60.0
_TRICKLE_SECONDS = 0.5
_PARENT_CHECK_SECONDS = 0.5


class Mode(StrEnum):
    """How the server behaves. `expire_sessions` forgets the sessions of that moment and goes on as `ok`."""

    OK = "ok"
    EXPIRE_SESSIONS = "expire_sessions"
    REFUSE_SESSIONS = "refuse_sessions"
    REFUSE_LOGINS = "refuse_logins"
    ERROR_500 = "error_500"
    HTML = "html"
    SLOW = "slow"
    SLOW_BODY = "slow_body"
    TRUNCATE = "truncate"
    DROP = "drop"
    REDIRECT = "redirect"


@dataclass(slots=True)
class DemoLims:
    """The server's state. Passwords are compared and never kept with the requests."""

    email: str
    password: str = field(repr=False)
    projects: list[Row]
    mode: Mode = Mode.OK
    sessions: set[str] = field(default_factory=set)
    requests: list[dict[str, str]] = field(default_factory=list)

    def set_mode(self, mode: Mode) -> None:
        if mode in (Mode.EXPIRE_SESSIONS, Mode.REFUSE_LOGINS):
            self.sessions.clear()
        self.mode = Mode.OK if mode is Mode.EXPIRE_SESSIONS else mode

    def has_session(self, request: Request) -> bool:
        return self.mode is not Mode.REFUSE_SESSIONS and request.cookies.get(_COOKIE) in self.sessions


class _TransportSharing(H11Protocol):
    """Lets a route cut its own connection."""

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


def _lims(request: Request) -> DemoLims:
    lims: DemoLims = request.app.state.lims
    return lims


async def _misbehave(request: Request) -> Response | None:
    """The answer of a broken server; None when it behaves."""
    transport: Transport = request.scope["state"]["transport"]
    match _lims(request).mode:
        case Mode.ERROR_500:
            return JSONResponse({"error": "something broke"}, status_code=500)
        case Mode.HTML:
            return HTMLResponse("<html><body>Please sign in to the guest network</body></html>")
        case Mode.SLOW:
            await asyncio.sleep(_SLOW_SECONDS)
        case Mode.SLOW_BODY:
            return StreamingResponse(_trickle(), media_type="application/json")
        case Mode.REDIRECT:
            return RedirectResponse("/elsewhere")
        case Mode.TRUNCATE:
            transport.write(
                b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{"data": [{"id"'
            )
            transport.close()
            return Response(status_code=500)
        case Mode.DROP:
            transport.abort()
            return Response(status_code=500)
    return None


async def _trickle() -> AsyncIterator[bytes]:
    yield b'{"data": ['
    while True:
        await asyncio.sleep(_TRICKLE_SECONDS)
        yield b" "


async def _login(request: Request) -> Response:
    lims = _lims(request)
    if (broken := await _misbehave(request)) is not None:
        return broken
    body = await request.json()
    right = body.get("email") == lims.email and secrets.compare_digest(str(body.get("password")), lims.password)
    if not right or lims.mode is Mode.REFUSE_LOGINS:
        return JSONResponse({"error": "invalid credentials"}, status_code=401)
    session = secrets.token_urlsafe(24)
    lims.sessions.add(session)
    response = JSONResponse(_user(lims))
    response.set_cookie(_COOKIE, session, httponly=True, samesite="lax")
    return response


async def _me(request: Request) -> Response:
    lims = _lims(request)
    if (broken := await _misbehave(request)) is not None:
        return broken
    return JSONResponse(_user(lims)) if lims.has_session(request) else _unauthorised()


async def _projects(request: Request) -> Response:
    lims = _lims(request)
    if (broken := await _misbehave(request)) is not None:
        return broken
    if not lims.has_session(request):
        return _unauthorised()
    return JSONResponse({"data": lims.projects, "count": len(lims.projects)})


async def _project(request: Request) -> Response:
    lims = _lims(request)
    if (broken := await _misbehave(request)) is not None:
        return broken
    if not lims.has_session(request):
        return _unauthorised()
    wanted = request.path_params["project"]
    for row in lims.projects:
        if wanted in (row.get("uid"), row.get("short_id")):
            return JSONResponse(row)
    return JSONResponse({"error": "no such project"}, status_code=404)


async def _set_mode(request: Request) -> Response:
    try:
        mode = Mode((await request.json())["mode"])
    except (ValueError, KeyError, TypeError):
        return JSONResponse({"error": f"mode must be one of {', '.join(Mode)}"}, status_code=400)
    _lims(request).set_mode(mode)
    return JSONResponse({"mode": mode})


async def _set_projects(request: Request) -> Response:
    _lims(request).projects = (await request.json())["projects"]
    return JSONResponse({"count": len(_lims(request).projects)})


async def _requests(request: Request) -> Response:
    if request.method == "DELETE":
        _lims(request).requests.clear()
    return JSONResponse({"requests": _lims(request).requests})


def _user(lims: DemoLims) -> dict[str, Any]:
    return {
        "id": 7,
        "uid": "1f0e0c1a-0000-4000-8000-000000000007",
        "email": lims.email,
        "role": "member",
        "created_at": 1_690_000_000,
        "updated_at": 1_690_000_000,
    }


def _unauthorised() -> Response:
    return JSONResponse({"error": "not logged in"}, status_code=401)


class _Recorder:
    """Notes every request before it is answered, unknown paths and wrong methods too."""

    def __init__(self, app: Any, lims: DemoLims) -> None:
        self._app, self._lims = app, lims

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and not scope["path"].startswith("/_control/"):
            self._lims.requests.append({"method": scope["method"], "path": scope["path"]})
        await self._app(scope, receive, send)


def make_app(lims: DemoLims) -> Any:
    app = Starlette(
        routes=[
            Route("/api/v1/login", _login, methods=["POST"]),
            Route("/api/v1/me", _me),
            Route("/api/v1/projects", _projects),
            Route("/api/v1/projects/{project:path}", _project),
            Route("/_control/mode", _set_mode, methods=["POST"]),
            Route("/_control/projects", _set_projects, methods=["POST"]),
            Route("/_control/requests", _requests, methods=["GET", "DELETE"]),
        ]
    )
    app.state.lims = lims
    return _Recorder(app, lims)


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        scheme = "https" if self.config.is_ssl else "http"
        for listening in sockets or ():
            print(f"listening on {scheme}://127.0.0.1:{listening.getsockname()[1]}", flush=True)  # noqa: T201

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn would end the process by the signal; here an asked-for end is status 0.
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        yield

    def _end(self) -> None:
        self.should_exit = True


async def _end_with_parent(server: uvicorn.Server) -> None:
    parent = os.getppid()
    # The kernel tells no event loop of a parent's death.
    while os.getppid() == parent:  # noqa: ASYNC110
        await asyncio.sleep(_PARENT_CHECK_SECONDS)
    server.should_exit = True


async def serve(lims: DemoLims, port: int, certificate: Path | None = None, key: Path | None = None) -> None:
    """Serves on loopback until SIGTERM, or until the parent process is gone. OSError when the port is taken.

    With `certificate` and `key` it speaks TLS.
    """
    with socket.create_server(("127.0.0.1", port)) as listening:
        config = uvicorn.Config(
            make_app(lims),
            http=_TransportSharing,
            lifespan="off",
            log_level="critical",
            timeout_graceful_shutdown=1,
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
        server = _Server(config)
        watching = asyncio.create_task(_end_with_parent(server))
        try:
            await server.serve(sockets=[listening])
        finally:
            watching.cancel()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m cli.demo.lims_server", description="A LIMS for demo and tests.")
    parser.add_argument("--port", type=int, default=0, help="0: the system chooses one")
    parser.add_argument("--email", required=True)
    parser.add_argument("--password-file", type=Path, required=True, help="its first line is the password")
    parser.add_argument("--projects", type=int, default=12, help="how many projects to make up")
    parser.add_argument("--certificate", type=Path, help="PEM file; with --key it speaks TLS")
    parser.add_argument("--key", type=Path, help="PEM file")
    arguments = parser.parse_args()
    password = arguments.password_file.read_text(encoding="utf-8").splitlines()[0]
    lims = DemoLims(arguments.email, password, make_rows(arguments.projects))
    asyncio.run(serve(lims, arguments.port, arguments.certificate, arguments.key))
    return 0


if __name__ == "__main__":
    sys.exit(main())
