from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.lims_gateway.projects.catalogue_format import CatalogueUnusableError, decode_catalogue, encode_catalogue
from services.lims_gateway.projects.project import Project, ProjectStatus

HERE = "https://lims.example/api/v1"
SECOND = 1_000_000_000
PRODUCED, FETCHED = 1_800_000_100 * SECOND, 1_800_000_000 * SECOND
FULL = Project(
    uid="u-1",
    short_id="PROJ-0042",
    name="Müller Glia Map",
    status=ProjectStatus.COMPLETED,
    id=42,
    owner="demo",
    created_at=1.0,
    updated_at=2.0,
    description="text",
    contact_name="Ada",
    metadata={"grant": "G-1"},
)
BARE = Project("u-2", "PROJ-0043", "bare", ProjectStatus.PENDING)
ROW_KEYS = [
    *("uid", "short_id", "name", "description", "status", "contact_name", "owner", "metadata", "fetched_at"),
]


def written(**changes: Any) -> bytes:
    document = json.loads(encode_catalogue(HERE, "station-1", PRODUCED, FETCHED, [FULL, BARE]))
    return json.dumps({**document, **changes}).encode()


def rows_of(*rows: Any) -> bytes:
    return written(projects=list(rows))


def test_the_file_is_what_the_wizard_reads() -> None:
    content = encode_catalogue(HERE, "station-1", PRODUCED, FETCHED, [FULL, BARE])
    document = json.loads(content)
    assert list(document) == ["schema_version", "produced_by", "produced_at", "lims_endpoint", "projects"]
    assert [list(row) for row in document["projects"]] == [ROW_KEYS, ROW_KEYS]
    assert (document["schema_version"], document["lims_endpoint"]) == ("1.0", HERE)
    assert (document["produced_at"], document["projects"][0]["fetched_at"]) == (
        "2027-01-15T08:01:40Z",
        "2027-01-15T08:00:00Z",
    )
    assert document["projects"][1] == {
        "uid": "u-2",
        "short_id": "PROJ-0043",
        "name": "bare",
        "description": None,
        "status": "Pending",
        "contact_name": None,
        "owner": "",
        "metadata": {},
        "fetched_at": "2027-01-15T08:00:00Z",
    }
    assert b"M\xc3\xbcller" in content


def test_what_was_written_is_read_back() -> None:
    catalogue = decode_catalogue(written(), HERE)
    assert (catalogue.produced_by, catalogue.produced_ns, catalogue.fetched_ns) == ("station-1", PRODUCED, FETCHED)
    first, second = catalogue.rows.projects
    assert (first.name, first.status, first.owner, first.metadata) == (
        FULL.name,
        FULL.status,
        FULL.owner,
        FULL.metadata,
    )
    assert (first.id, first.created_at, first.updated_at) == (0, None, None)
    assert second == BARE


@pytest.mark.parametrize("endpoint", ["https://lims.example", "https://lims.example/", "https://lims.example/api/v1/"])
def test_another_spelling_of_the_endpoint_is_the_same_one(endpoint: str) -> None:
    assert decode_catalogue(written(lims_endpoint=endpoint), HERE).rows.projects


def test_what_other_producers_write_is_read() -> None:
    row = {"uid": "u", "short_id": "s", "name": "n", "status": "active", "contact": "Ada", "members": ["x"], "more": 1}
    content = b"\xef\xbb\xbf" + written(projects=[row], produced_at="yesterday")
    catalogue = decode_catalogue(content, HERE)
    assert catalogue.rows.projects == [Project("u", "s", "n", ProjectStatus.ACTIVE, contact_name="Ada")]
    assert (catalogue.produced_ns, catalogue.fetched_ns) == (None, None)


@pytest.mark.parametrize(
    "bad", [{"uid": "u", "short_id": "s", "name": "n"}, {"uid": "u"}, 7, None, {"uid": "u", "status": "Sleeping"}]
)
def test_a_bad_row_costs_no_other(bad: Any) -> None:
    good = json.loads(written())["projects"][0]
    rows = decode_catalogue(rows_of(bad, good), HERE).rows
    assert ([p.uid for p in rows.projects], rows.skipped) == (["u-1"], 1)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "no catalogue"),
        (b"<html>", "no catalogue"),
        (b"[]", "no catalogue"),
        (b"{}", "no catalogue"),
        (b"\xff\xfe", "no catalogue"),
        (b"[" * 5000, "no catalogue"),
        (written(schema_version="1.1"), "schema version is '1.1'"),
        (written(schema_version=1), "no catalogue"),
        (written(projects={}), "no catalogue"),
        (written(lims_endpoint="https://other.example/api/v1"), "LIMS at https://other.example"),
        (written()[:-9], "no catalogue"),
    ],
)
def test_what_is_no_catalogue_of_ours(content: bytes, problem: str) -> None:
    with pytest.raises(CatalogueUnusableError, match=problem):
        decode_catalogue(content, HERE)


@given(st.binary())
def test_any_bytes_are_a_catalogue_or_refused(content: bytes) -> None:
    with suppress(CatalogueUnusableError):
        decode_catalogue(content, HERE)
