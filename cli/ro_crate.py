"""RO-Crate 1.1 metadata of an exported run: its files, and what the event log says happened to it. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from labferry.events.v1 import event_pb2

FILE_NAME = "ro-crate-metadata.json"
_CONTEXT = "https://w3id.org/ro/crate/1.1/context"


@dataclass(frozen=True, slots=True)
class CrateFile:
    """One file of the crate."""

    path: str
    size: int
    sha256: str


def ro_crate(
    run: str,
    destination: str,
    files: Callable[[], Iterable[CrateFile]],
    events: Sequence[event_pb2.Event],
    description: Iterable[tuple[str, str]],
) -> Iterator[bytes]:
    """The file, piece by piece; `files` is asked twice. `description` becomes properties of the crate; a name may
    come more than once."""
    actions = [_action(event) for event in events]
    times = [event.recorded_time.ToJsonString() for event in events]
    about: dict[str, Any] = {
        "@id": FILE_NAME,
        "@type": "CreativeWork",
        "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
        "about": {"@id": "./"},
    }
    root: dict[str, Any] = {
        "@id": "./",
        "@type": "Dataset",
        "name": run,
        "identifier": run,
        "description": f"Acquisition run as it was verified at the destination {destination}",
        "datePublished": times[-1] if times else "",
        "mentions": [{"@id": action["@id"]} for action in actions],
        "additionalProperty": [
            {"@type": "PropertyValue", "propertyID": name, "value": value} for name, value in description
        ],
    }
    yield b'{"@context": ' + _json(_CONTEXT) + b', "@graph": [\n' + _json(about) + b",\n"
    yield _json(root).removesuffix(b"}") + b', "hasPart": ['
    separator = b"\n"
    for file in files():
        yield separator + _json({"@id": _id(file.path)})
        separator = b",\n"
    yield b"]}"
    for file in files():
        described = {"@type": "File", "name": file.path, "contentSize": str(file.size), "sha256": file.sha256}
        yield b",\n" + _json({"@id": _id(file.path), **described})
    for agent in sorted({a["agent"]["@id"] for a in actions}):
        yield b",\n" + _json({"@id": agent, "@type": "Person", "name": agent[1:]})
    for action in actions:
        yield b",\n" + _json(action)
    yield b"\n]}\n"


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _action(event: event_pb2.Event) -> dict[str, Any]:
    """One event. Its position and hash lead back into the log."""
    action = {
        "@id": f"#event-{event.position}",
        "@type": "Action",
        "name": event.type,
        "object": {"@id": "./"},
        "agent": {"@id": f"#{event.actor}"},
        "endTime": event.recorded_time.ToJsonString(),
        "identifier": event.hash.hex(),
    }
    return {**action, "description": event.reason} if event.reason else action


def _id(path: str) -> str:
    return quote(path)
