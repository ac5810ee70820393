from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.demo.lims_projects import make_rows
from services.lims_gateway.projects.project import NotAProjectListError, ProjectStatus
from services.lims_gateway.projects.rest_rows import decode_list, decode_row

ROW = make_rows(2)[1]
REQUIRED = ("id", "uid", "short_id", "name", "status", "owner", "created_at", "updated_at")


def encode(value: Any) -> bytes:
    return json.dumps(value).encode()


def test_a_whole_row() -> None:
    project = decode_row(encode(ROW))
    assert project is not None
    assert (project.id, project.name, project.status) == (43, "Retina Atlas", ProjectStatus.ACTIVE)
    assert project.metadata == {"grant": "G-43", "samples": 1}


@pytest.mark.parametrize("field", REQUIRED)
def test_a_required_field_that_is_missing_or_null(field: str) -> None:
    assert decode_row(encode({k: v for k, v in ROW.items() if k != field})) is None
    assert decode_row(encode({**ROW, field: None})) is None


@pytest.mark.parametrize("field", ["description", "contact_name", "metadata"])
def test_fields_that_may_be_null_or_absent(field: str) -> None:
    for row in ({k: v for k, v in ROW.items() if k != field}, {**ROW, field: None}):
        project = decode_row(encode(row))
        assert project is not None
        assert getattr(project, field) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": 2**63},
        {"id": True},
        {"uid": ""},
        {"short_id": ""},
        {"status": "active"},
        {"created_at": -1},
        {"updated_at": 10**12},
        {"metadata": []},
        {"name": 7},
        {"name": "n" * 256},
        {"uid": "a\0b"},
        {"short_id": "s" * 256},
    ],
)
def test_values_that_no_answer_could_carry(wrong: dict[str, Any]) -> None:
    assert decode_row(encode({**ROW, **wrong})) is None


def test_lists() -> None:
    other = make_rows(3)[2]
    rows = decode_list(encode({"data": [ROW, {}, ROW, other], "count": 4}))
    assert [p.uid for p in rows.projects] == [ROW["uid"], other["uid"]]
    assert (rows.skipped, rows.skipped_uids) == (2, frozenset({ROW["uid"]}))
    assert decode_list(b'{"count": 0}').projects == []


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'"data"', b'{"data": 7}', b'{"data": [', b"\xff", b"[" * 5000]
)
def test_what_is_no_list(body: bytes) -> None:
    with pytest.raises(NotAProjectListError):
        decode_list(body)


@given(st.binary())
def test_any_bytes_are_a_list_or_refused(body: bytes) -> None:
    decode_row(body)
    with suppress(NotAProjectListError):
        decode_list(body)
