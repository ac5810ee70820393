"""What an instrument's list of files asks for (FORMATS §6)."""

from __future__ import annotations

import pytest

from libs.run_tree.completeness_manifest import (
    CompletenessManifestError,
    not_yet_there,
    parse_completeness_manifest,
)


def test_every_file_must_be_there_with_its_size() -> None:
    expected = parse_completeness_manifest(
        b'{"files": [{"path": "a.tif", "size": 3, "more": 1}, {"path": "sub/b.tif"}], "made_by": "scope"}'
    )
    assert not_yet_there(expected, {}) == ["a.tif", "sub/b.tif"]
    assert not_yet_there(expected, {"a.tif": 2, "sub/b.tif": 0}) == ["a.tif"]
    assert not_yet_there(expected, {"a.tif": 4, "sub/b.tif": 0}) == ["a.tif"]
    assert not_yet_there(expected, {"a.tif": 3, "sub/b.tif": 99, "extra": 1}) == []


@pytest.mark.parametrize("content", [b"{}", b'{"files": []}', b'{"files": null}'])
def test_a_list_of_nothing_is_complete_at_once(content: bytes) -> None:
    assert not_yet_there(parse_completeness_manifest(content), {}) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"files": {}}',
        b'{"files": ["a"]}',
        b'{"files": [{"size": 3}]}',
        b'{"files": [{"path": ""}]}',
        b'{"files": [{"path": "a", "size": -1}]}',
        b'{"files": [{"path": "a", "size": "3"}]}',
        b'{"files": [{"path": "a", "size": true}]}',
        b'{"files": [{"path": "a", "size": 1.5}]}',
    ],
)
def test_what_is_no_list_is_never_complete(content: bytes) -> None:
    with pytest.raises(CompletenessManifestError):
        parse_completeness_manifest(content)


@pytest.mark.parametrize("path", ["../a", "a/../../b", "/etc/passwd", "a//b", "./a", "a/", "a\\u0000"])
def test_a_path_that_leaves_the_run_is_refused(path: str) -> None:
    with pytest.raises(CompletenessManifestError, match="no path inside the run"):
        parse_completeness_manifest(b'{"files": [{"path": "%s"}]}' % path.encode())
