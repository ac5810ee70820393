"""The metadata of an exported run follows RO-Crate 1.1."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from cli.ro_crate import CrateFile, CrateSubject, ro_crate
from labferry.events.v1 import event_pb2
from tests.unit.cli.ro_crate_rules import broken_rules

NAMES = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1)
SUBJECT = CrateSubject("E/P/Runs/Run_1", "nas", {"nas": 2, "the local folder": 1}, datetime(2026, 4, 17, tzinfo=UTC))
FILES = ("a.tif", "sub/größe 2.csv", "面试/100%.png", "#event-1", "a:b?c&d", "tab\tin", "line\u2028break", "~")
ACTORS = ("asmith", "service:sync_engine", "event-1")


def _crate(names: Sequence[str] = FILES, actors: Sequence[str] = ACTORS) -> dict[str, Any]:
    files = [CrateFile(name, 3, "0" * 64) for name in names]
    events = [
        event_pb2.Event(
            position=position,
            type="sync.job.verified.v1",
            actor=actor,
            hash=b"\1" * 32,
            recorded_time=Timestamp(seconds=1_776_400_000, nanos=123_456_789),
        )
        for position, actor in enumerate(actors, start=1)
    ]
    said = [("symbolic_link", "x -> y"), ("symbolic_link", "z -> y")]
    document: dict[str, Any] = json.loads(b"".join(ro_crate(SUBJECT, lambda: files, events, said)))
    return document


def _entities(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {entity["@id"]: entity for entity in document["@graph"]}


def test_it_keeps_the_rules() -> None:
    document = _crate()
    assert broken_rules(document) == []
    root = _entities(document)["./"]
    assert root["license"] == "No licence is stated."
    assert root["datePublished"] == "2026-04-17T00:00:00.000Z"
    assert "nas, and copied: 2 from nas, 1 from the local folder" in root["description"]
    assert broken_rules(_crate(names=(), actors=())) == []


@given(st.lists(NAMES.filter(lambda name: name not in (".", "..")), unique=True))
def test_it_keeps_them_with_any_names(names: Sequence[str]) -> None:
    assert broken_rules(_crate(names=names)) == []


def test_names_stay_as_they_are_where_an_iri_may_have_them() -> None:
    parts = [part["@id"] for part in _entities(_crate())["./"]["hasPart"]]
    assert parts == [
        "a.tif",
        "sub/größe%202.csv",
        "面试/100%25.png",
        "%23event-1",
        "a%3Ab%3Fc%26d",
        "tab%09in",
        "line\u2028break",
        "~",
    ]


def test_who_did_it_is_a_person_or_a_program() -> None:
    entities = _entities(_crate())
    agents = [entities[entity["agent"]["@id"]] for entity in entities.values() if entity["@type"] == "Action"]
    assert [(agent["name"], agent["@type"]) for agent in agents] == [
        ("asmith", "Person"),
        ("service:sync_engine", "SoftwareApplication"),
        ("event-1", "Person"),
    ]


def test_a_reader_of_json_ld_keeps_the_hashes() -> None:
    standard, terms = _crate()["@context"]
    assert standard == "https://w3id.org/ro/crate/1.1/context"
    assert terms == {"sha256": "https://schema.org/sha256"}


@pytest.mark.parametrize(
    "change",
    [
        {"license": ""},
        {"datePublished": ""},
        {"datePublished": "2026-04-17T00:00:00.123456Z"},
        {"additionalProperty": [{"@type": "PropertyValue", "value": "x"}]},
        {"mentions": [{"@id": "#nothing"}]},
        {"hasPart": []},
        {"@type": ""},
    ],
)
def test_the_rules_notice(change: dict[str, Any]) -> None:
    document = _crate()
    _entities(document)["./"].update(change)
    assert broken_rules(document)
