"""RO-Crate 1.1 metadata of an exported run: its files, and what the event log says happened to it. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from google.protobuf.timestamp_pb2 import Timestamp

from labferry.events.v1 import event_pb2

FILE_NAME = "ro-crate-metadata.json"
# RO-Crate's own context has no term for the hash: without one, a JSON-LD reader drops it.
_CONTEXT = ["https://w3id.org/ro/crate/1.1/context", {"sha256": "https://schema.org/sha256"}]
_NO_LICENCE = "No licence is stated."
_SERVICE = "service:"

# RFC 3987, "ucschar": what stands for itself in an IRI beside ASCII's unreserved characters.
_PLANES = "".join(f"{chr(plane << 16)}-{chr(plane << 16 | 0xFFFD)}" for plane in range(1, 14))
_NOT_ITSELF = re.compile(f"[^A-Za-z0-9._~/\xa0-\ud7ff\uf900-\ufdcf\ufdf0-\uffef{_PLANES}\U000e1000-\U000efffd-]+")


@dataclass(frozen=True, slots=True)
class CrateSubject:
    """What the crate is about: the run, where it was verified, how many files came from which place, and when the crate
    was made."""

    run: str
    destination: str
    origins: Mapping[str, int]
    made: datetime


@dataclass(frozen=True, slots=True)
class CrateFile:
    """One file of the crate."""

    path: str
    size: int
    sha256: str


def told_origins(origins: Mapping[str, int]) -> str:
    """How many files came from which place, in words."""
    return ", ".join(f"{count} from {place}" for place, count in origins.items())


def ro_crate(
    subject: CrateSubject,
    files: Callable[[], Iterable[CrateFile]],
    events: Sequence[event_pb2.Event],
    description: Iterable[tuple[str, str]],
) -> Iterator[bytes]:
    """The file, piece by piece; `files` is asked twice. `description` becomes properties of the crate; a name may
    come more than once."""
    actions = [_action(event) for event in events]
    properties = [
        {"@id": f"#property-{number}", "@type": "PropertyValue", "propertyID": name, "name": name, "value": value}
        for number, (name, value) in enumerate(description, start=1)
    ]
    about: dict[str, Any] = {
        "@id": FILE_NAME,
        "@type": "CreativeWork",
        "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
        "about": {"@id": "./"},
    }
    root: dict[str, Any] = {
        "@id": "./",
        "@type": "Dataset",
        "name": subject.run,
        "identifier": subject.run,
        "description": f"Acquisition run, each file with the content that was verified at the destination"
        f" {subject.destination}, and copied: {told_origins(subject.origins)}",
        "datePublished": _milliseconds(subject.made),
        "license": _NO_LICENCE,
        "mentions": [_reference(action) for action in actions],
        "additionalProperty": [_reference(each) for each in properties],
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
    for entity in (*properties, *map(_agent, sorted({event.actor for event in events})), *actions):
        yield b",\n" + _json(entity)
    yield b"\n]}\n"


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _reference(entity: Mapping[str, Any]) -> dict[str, Any]:
    return {"@id": entity["@id"]}


def _agent(actor: str) -> dict[str, Any]:
    kind = "SoftwareApplication" if actor.startswith(_SERVICE) else "Person"
    return {"@id": _agent_id(actor), "@type": kind, "name": actor}


def _agent_id(actor: str) -> str:
    return f"#agent-{quote(actor, safe=':')}"


def _action(event: event_pb2.Event) -> dict[str, Any]:
    """One event. Its position and hash lead back into the log."""
    action = {
        "@id": f"#event-{event.position}",
        "@type": "Action",
        "name": event.type,
        "object": {"@id": "./"},
        "agent": {"@id": _agent_id(event.actor)},
        "endTime": _milliseconds(_moment(event.recorded_time)),
        "identifier": event.hash.hex(),
    }
    return {**action, "description": event.reason} if event.reason else action


def _moment(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(UTC)


def _milliseconds(moment: datetime) -> str:
    """RO-Crate allows no finer time."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _id(path: str) -> str:
    return _NOT_ITSELF.sub(lambda found: quote(found.group()), path)
