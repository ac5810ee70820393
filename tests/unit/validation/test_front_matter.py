"""The key path of every piece of a front matter, sound YAML or not (SPEC §3)."""

from __future__ import annotations

import pytest

from services.sync_engine.validation.front_matter import front_matter_pieces


def key_paths_with(markdown: str, text: str) -> list[str]:
    return [piece.key_path for piece in front_matter_pieces(markdown) if text in piece.text]


def block(*lines: str) -> str:
    return "\n".join(["---", *lines, "---", "# Body with {{ marker }}"])


@pytest.mark.parametrize(
    ("lines", "key_path"),
    [
        (["operator: {{ marker }}"], "operator"),
        (["operator: '{{ marker }}'"], "operator"),
        (["core_fields:", "  label: x", "  operator: {{ marker }}"], "core_fields.operator"),
        (["core_fields:", "  label: {{ marker }} and more"], "core_fields.label"),
        (["list:", "  - a", "  - {{ marker }}"], "list.1"),
        (["objective: |", "  first", "  {{ marker }}"], "objective"),
        (["a: {b: [1, {{ marker }}]}"], "a"),
        (["{% if x %}", "label: {{ marker }}", "{% endif %}"], "label"),
        (["a:", "  b: 'open", "  c: {{ marker }}"], "a.c"),
    ],
)
def test_the_key_path_of_a_marker(lines: list[str], key_path: str) -> None:
    assert key_paths_with(block(*lines), "{{ marker }}") == [key_path]


def test_comments_and_the_body_are_no_front_matter() -> None:
    assert key_paths_with(block("# {{ marker }}", "a: b"), "{{ marker }}") == []


@pytest.mark.parametrize(
    "markdown",
    [
        "",
        "# Title {{ marker }}",
        "---\na: {{ marker }}\n",
        "\n---\na: {{ marker }}\n---\n",
        "--- x\na: {{ marker }}\n---\n",
    ],
)
def test_no_closed_block_no_front_matter(markdown: str) -> None:
    assert front_matter_pieces(markdown) == []


def test_the_block_must_close_within_200_lines() -> None:
    assert front_matter_pieces("\n".join(["---", *["a: b"] * 198, "---"])) != []
    assert front_matter_pieces("\n".join(["---", *["a: b"] * 199, "---"])) == []


def test_windows_line_ends_and_a_byte_order_mark() -> None:
    assert key_paths_with("\ufeff---\r\na: {{ marker }}\r\n---\r\n", "{{ marker }}") == ["a"]


def test_an_anchor_that_holds_itself_ends() -> None:
    assert front_matter_pieces(block("a: &x", "  b: *x")) is not None
