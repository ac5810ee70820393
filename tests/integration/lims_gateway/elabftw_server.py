"""An eLabFTW over real HTTP, in its published shapes: python -m tests.integration.lims_gateway.elabftw_server KEY

Serves on loopback what `elabftw/README.md` names, remembers every request, and does what the real one does: 15 entries
a page unless asked, at most 2 here, refusals of a wrong key as JSON, no total.
POST /_control/items [item, …] · POST /_control/key {"key": …} · GET /_control/requests
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

CATEGORY_ID = 5
_FOLDER = Path(__file__).with_name("elabftw")
_DEFAULT_LIMIT = 15
# A server may allow fewer than a caller asks for.
_MOST = 2


class ServerText(JSONResponse):
    """JSON as a server of version 4.8.6 wrote it (elabftw/README.md): slashes, marks, quotes and non-ASCII escaped."""

    _ESCAPED = (*((mark, f"\\u{ord(mark):04X}") for mark in "<>&'"), ('\\"', "\\u0022"), ("/", "\\/"))

    def render(self, content: Any) -> bytes:
        text = json.dumps(content, separators=(",", ":"))
        for mark, escaped in self._ESCAPED:
            text = text.replace(mark, escaped)
        return text.encode("ascii")


def published_shape(name: str) -> Any:
    return json.loads((_FOLDER / name).read_text(encoding="utf-8"))


@dataclass
class Elabftw:
    key: str
    items: list[dict[str, Any]]
    requests: list[dict[str, str]] = field(default_factory=list)
    removed_between_pages: bool = False

    def refusal(self, request: Request) -> Response | None:
        if request.headers.get("authorization") == self.key:
            return None
        body = {"code": 401, "message": "Unauthorized", "description": "The provided key is not valid."}
        return ServerText(body, status_code=401)


def _server(request: Request) -> Elabftw:
    server: Elabftw = request.app.state.server
    return server


async def _items(request: Request) -> Response:
    server = _server(request)
    if (refusal := server.refusal(request)) is not None:
        return refusal
    asked = request.query_params
    states = [int(s) for s in asked.get("state", "1").split(",")]
    found = [i for i in server.items if i["state"] in states and str(i["category"]) == asked["cat"]]
    found.sort(key=lambda item: int(item["id"]), reverse=(asked.get("order"), asked.get("sort")) != ("id", "asc"))
    offset, limit = int(asked.get("offset", 0)), min(int(asked.get("limit", _DEFAULT_LIMIT)), _MOST)
    if server.removed_between_pages and offset == 0:
        server.removed_between_pages = False
        server.items.remove(found[0])
    return ServerText(found[offset : offset + limit])


async def _item(request: Request) -> Response:
    server = _server(request)
    if (refusal := server.refusal(request)) is not None:
        return refusal
    for item in server.items:
        if item["id"] == request.path_params["id"]:
            return ServerText({**item, "body": "<p>text</p>", "metadata_decoded": None})
    body = {"code": 404, "message": "Not found", "description": "Nothing to show with this id"}
    return ServerText(body, status_code=404)


async def _me(request: Request) -> Response:
    return _server(request).refusal(request) or ServerText(published_shape("users_me.json"))


async def _control(request: Request) -> Response:
    server = _server(request)
    match request.path_params["what"]:
        case "items":
            server.items = await request.json()
        case "key":
            server.key = (await request.json())["key"]
        case "remove_between_pages":
            server.removed_between_pages = True
        case _:
            return JSONResponse(server.requests)
    return JSONResponse({})


class _Recorder:
    def __init__(self, app: Any, server: Elabftw) -> None:
        self._app, self._server = app, server

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and not scope["path"].startswith("/_control/"):
            self._server.requests.append({"method": scope["method"], "path": scope["path"]})
        await self._app(scope, receive, send)


async def _serve(server: Elabftw) -> None:
    app = Starlette(
        routes=[
            Route("/api/v2/items", _items),
            Route("/api/v2/items/{id:int}", _item),
            Route("/api/v2/users/me", _me),
            Route("/_control/{what}", _control, methods=["GET", "POST"]),
        ]
    )
    app.state.server = server
    config = uvicorn.Config(_Recorder(app, server), port=0, lifespan="off", log_level="critical")
    listening = config.bind_socket()
    print(f"listening on http://127.0.0.1:{listening.getsockname()[1]}", flush=True)  # noqa: T201
    await uvicorn.Server(config).serve(sockets=[listening])


if __name__ == "__main__":
    asyncio.run(_serve(Elabftw(sys.argv[1], published_shape("items.json"))))
