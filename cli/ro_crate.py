"""RO-Crate 1.1 metadata of an exported run: its files, and what the event log says happened to it. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from labferry.events.v1 import event_pb2

FILE_NAME = "ro-crate-metadata.json"
_CONTEXT = "https://w3id.org/ro/crate/1.1/context"


def ro_crate(
    run: str,
    destination: str,
    files: Mapping[str, tuple[int, str]],
    events: Sequence[event_pb2.Event],
    description: Mapping[str, str],
) -> bytes:
    """`files` gives size and SHA-256 by path; `description` becomes properties of the crate."""
    actions = [_action(event) for event in events]
    times = [event.recorded_time.ToJsonString() for event in events]
    root: dict[str, Any] = {
        "@id": "./",
        "@type": "Dataset",
        "name": run,
        "identifier": run,
        "description": f"Acquisition run as it was verified at the destination {destination}",
        "datePublished": times[-1] if times else "",
        "hasPart": [{"@id": _id(path)} for path in files],
        "mentions": [{"@id": action["@id"]} for action in actions],
        "additionalProperty": [
            {"@type": "PropertyValue", "propertyID": name, "value": value} for name, value in description.items()
        ],
    }
    graph = [
        {
            "@id": FILE_NAME,
            "@type": "CreativeWork",
            "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
            "about": {"@id": "./"},
        },
        root,
        *(
            {"@id": _id(path), "@type": "File", "name": path, "contentSize": str(size), "sha256": digest}
            for path, (size, digest) in files.items()
        ),
        *(
            {"@id": agent, "@type": "Person", "name": agent[1:]}
            for agent in sorted({a["agent"]["@id"] for a in actions})
        ),
        *actions,
    ]
    return json.dumps({"@context": _CONTEXT, "@graph": graph}, ensure_ascii=False, indent=1).encode()


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
