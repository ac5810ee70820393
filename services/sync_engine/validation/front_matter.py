"""The YAML front matter of a Markdown file, as text with the key path that each piece belongs to (SPEC §3).

Templates leave markers there that make it anything but sound YAML, so what can't be composed is read line by line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from services.sync_engine.validation.bounded_yaml import compose_yaml

_MOST_LINES = 200
_FENCE = "---"
_KEY_LINE = re.compile(r"(?P<indent> *+)(?:- ++)*+(?P<key>[^\s:#][^:#]*+):(?:\s|$)")


@dataclass(frozen=True, slots=True)
class FrontMatterPiece:
    """A piece of the block, as written, and the keys that lead to it, joined with "."; "" for the block itself."""

    key_path: str
    text: str


def front_matter_problem(markdown: str) -> str | None:
    """What makes the front matter unreadable, one sentence; None when there is none, or when it is sound."""
    lines = markdown.removeprefix("\ufeff").splitlines()
    if not lines or lines[0].rstrip() != _FENCE:
        return None
    end = _closing_fence(lines)
    if end is None:
        return f"The front matter is not closed within {_MOST_LINES} lines."
    try:
        compose_yaml("\n".join(lines[1:end]))
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 2}" if error.problem_mark is not None else ""
        return f"The front matter is not YAML{line}."
    except yaml.YAMLError as error:
        return f"The front matter can't be read: {error}."
    return None


def _closing_fence(lines: list[str]) -> int | None:
    return next((n for n, line in enumerate(lines[1:_MOST_LINES], start=1) if line.rstrip() == _FENCE), None)


def front_matter_pieces(markdown: str) -> list[FrontMatterPiece]:
    """The pieces of the block between the opening `---` and the closing one; empty when there is no such block."""
    lines = markdown.removeprefix("\ufeff").splitlines()
    if not lines or lines[0].rstrip() != _FENCE:
        return []
    end = _closing_fence(lines)
    if end is None:
        return []
    block = "\n".join(lines[1:end])
    try:
        node = compose_yaml(block)
    except yaml.YAMLError:
        return list(_pieces_by_line(lines[1:end]))
    return [] if node is None else list(_pieces_of(node, (), block, set()))


def _pieces_of(node: yaml.Node, path: tuple[str, ...], block: str, seen: set[int]) -> Iterator[FrontMatterPiece]:
    # An alias leads to its anchor's node again, and may lie inside it: each node is written once and told once.
    if id(node) in seen:
        return
    seen.add(id(node))
    # In flow style a leftover `{{ marker }}` is itself a mapping: only the text as written shows it.
    if isinstance(node, yaml.MappingNode) and not node.flow_style:
        for key, value in node.value:
            key_text = _as_written(key, block)
            below = (*path, key_text.strip("\"'"))
            yield FrontMatterPiece(".".join(below), key_text)
            yield from _pieces_of(value, below, block, seen)
    elif isinstance(node, yaml.SequenceNode) and not node.flow_style:
        for number, item in enumerate(node.value):
            yield from _pieces_of(item, (*path, str(number)), block, seen)
    else:
        yield FrontMatterPiece(".".join(path), _as_written(node, block))


def _as_written(node: yaml.Node, block: str) -> str:
    return block[node.start_mark.index : node.end_mark.index]


def _pieces_by_line(lines: list[str]) -> Iterator[FrontMatterPiece]:
    keys: list[tuple[int, str]] = []
    for line in lines:
        shape = _KEY_LINE.match(line)
        if shape is not None:
            indent = len(shape["indent"])
            while keys and keys[-1][0] >= indent:
                keys.pop()
            keys.append((indent, shape["key"].strip()))
        yield FrontMatterPiece(".".join(key for _, key in keys), line)
