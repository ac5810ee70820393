from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from services.lims_gateway.projects.elabftw_items import decode_item, decode_items, decode_page, decode_user
from services.lims_gateway.projects.project import NotAProjectListError, ProjectStatus
from tests.integration.lims_gateway.elabftw_server import CATEGORY_ID, published_shape

STATUSES = {"On hold": ProjectStatus.PENDING}
ITEM: dict[str, Any] = published_shape("items.json")[0]


def decode(**changes: Any) -> Any:
    return decode_item(json.dumps({**ITEM, **changes}).encode(), STATUSES, CATEGORY_ID)


def test_a_resource_of_the_category_is_a_project() -> None:
    project = decode()
    assert (project.uid, project.short_id, project.id) == (ITEM["elabid"], f"ELAB-{ITEM['id']}", ITEM["id"])
    assert (project.name, project.owner) == (ITEM["title"], ITEM["fullname"])
    assert (project.created_at, project.updated_at) == (1716864139.0, 1716950551.0)
    assert project.metadata["extra_fields"]["Grant"]["value"] == "G-42"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"status_title": "On hold"}, ProjectStatus.PENDING),
        ({"status_title": "completed"}, ProjectStatus.COMPLETED),
        ({"status_title": "Waiting for the synchrotron"}, ProjectStatus.ACTIVE),
        ({"status_title": None}, ProjectStatus.ACTIVE),
        ({"status_title": "completed", "state": 2}, ProjectStatus.ARCHIVED),
    ],
)
def test_titles_of_statuses(fields: dict[str, Any], status: ProjectStatus) -> None:
    assert decode(**fields).status is status


@pytest.mark.parametrize(
    "metadata", [None, "", "null", "not JSON", "[1]", 7, [1]], ids=["none", "empty", "null", "text", "list", "n", "l"]
)
def test_metadata_that_is_no_object_is_none(metadata: Any) -> None:
    assert decode(metadata=metadata).metadata is None


def test_metadata_comes_as_text_or_as_an_object() -> None:
    assert decode(metadata={"a": 1}).metadata == decode(metadata='{"a": 1}').metadata == {"a": 1}


@pytest.mark.parametrize(
    "wrong",
    [
        {"state": 3},
        {"category": CATEGORY_ID + 1},
        {"category": None},
        {"elabid": None},
        {"title": ""},
        {"created_at": "yesterday"},
        {"id": "7"},
    ],
)
def test_what_is_no_project(wrong: dict[str, Any]) -> None:
    assert decode(**wrong) is None


def test_unusable_rows_are_counted_and_named() -> None:
    rows = [msgspec.Raw(json.dumps(row).encode()) for row in (ITEM, {**ITEM, "id": 8, "elabid": "e-8", "title": 7})]
    found = decode_items(rows, STATUSES, CATEGORY_ID)
    assert ([p.uid for p in found.projects], found.skipped, found.skipped_uids) == (
        [ITEM["elabid"]],
        1,
        frozenset({"e-8"}),
    )


@pytest.mark.parametrize("body", [b"", b"{}", b"<html>", b"[1", b"\xff"])
def test_what_is_no_page(body: bytes) -> None:
    with pytest.raises(NotAProjectListError):
        decode_page(body)


def test_the_account() -> None:
    user = decode_user(json.dumps(published_shape("users_me.json")).encode())
    assert user is not None
    assert (user.id, user.email, user.role) == (3, "toto@yopmail.com", "user")
    assert decode_user(b"{}") is None
