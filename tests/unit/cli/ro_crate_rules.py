"""What RO-Crate 1.1 asks of a metadata document, as far as a crate of files and actions can break it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

_TIME = re.compile(r"\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}:\d{2}(\.\d{1,3})?(Z|[+-]\d{2}:\d{2}))?")
_DATES = ("datePublished", "endTime")
# RFC 3986: what a path can't hold but as an escape.
_NOT_IN_A_PATH = re.compile(r"[\x00-\x20\x7f-\x9f<>\"{}|\\^`\[\]?#:]|%(?![0-9A-F]{2})")


def broken_rules(document: dict[str, Any]) -> list[str]:
    """One line for each; none: it keeps them."""
    return list(_broken(document))


def _broken(document: dict[str, Any]) -> Iterator[str]:
    context = document["@context"]
    if (context if isinstance(context, str) else context[0]) != "https://w3id.org/ro/crate/1.1/context":
        yield "the context is not RO-Crate 1.1's"
    graph = document["@graph"]
    entities = {entity.get("@id"): entity for entity in graph}
    if len(entities) != len(graph):
        yield "an @id is missing or appears twice"
    for entity in graph:
        yield from _broken_entity(entity, entities)
    descriptor, root = entities.get("ro-crate-metadata.json", {}), entities.get("./", {})
    if descriptor.get("about") != {"@id": "./"} or descriptor.get("@type") != "CreativeWork":
        yield "the metadata descriptor is not about the root"
    if root.get("@type") != "Dataset":
        yield "the root is no Dataset"
    for name in ("name", "description", "license", "datePublished"):
        if not root.get(name):
            yield f"the root has no {name}"
    files = {entity["@id"] for entity in graph if entity.get("@type") == "File"}
    if files != {part["@id"] for part in root.get("hasPart", ())}:
        yield "hasPart names other things than the files"
    for each in files:
        if _NOT_IN_A_PATH.search(each) or unquote(each) != entities[each]["name"]:
            yield f"{each!r} is no path of a URI"


def _broken_entity(entity: dict[str, Any], entities: dict[str, Any]) -> Iterator[str]:
    if not entity.get("@id") or not entity.get("@type"):
        yield f"{entity} has no @id or no @type"
    for name, found in entity.items():
        for value in found if isinstance(found, list) else [found]:
            if isinstance(value, list) or (isinstance(value, dict) and set(value) not in ({"@id"}, {"@value"})):
                yield f"{entity.get('@id')}: {name} is nested"
            elif isinstance(value, dict) and "@id" in value and not _leads_somewhere(value["@id"], entities):
                yield f"{entity.get('@id')}: {name} leads nowhere"
            elif name in _DATES and not _TIME.fullmatch(value):
                yield f"{entity.get('@id')}: {name} is no time in milliseconds"


def _leads_somewhere(identifier: str, entities: dict[str, Any]) -> bool:
    return identifier in entities or identifier.startswith(("http://", "https://"))
