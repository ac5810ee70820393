"""The five rules of names and content (SPEC §3), pure: text in, matches out.

Names are str with surrogate escapes where they aren't UTF-8. A rule that matches the same text twice in one place
reports it once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from libs.run_tree.run_path import RunKind, RunPath, is_reserved_device_name
from services.sync_engine.validation.finding import Rule

_PLACEHOLDER = re.compile(r"<[A-Za-z_][A-Za-z0-9_]*>")
_JINJA_EXPRESSION = re.compile(r"\{\{[^}]*+(\}\})?")
_JINJA_STATEMENT = re.compile(r"\{%[^%]*+%\}")
_LONGEST_TOKEN = 255
_MOST_TOKENS = 1000
# Without one of these no rule but that of reserved names can fire: most names are settled with one look.
_SUSPICIOUS = re.compile(r"[<>:\"/\\|?*{\x00-\x1f]|[. ]\Z")
_ILLEGAL = frozenset('<>:"/\\|?*') | {chr(code) for code in range(32)}


@dataclass(frozen=True, slots=True)
class RuleMatch:
    """A rule that fired, the text that matched (None when there is none), and one plain sentence."""

    rule: Rule
    token: str | None
    detail: str


def check_name(name: str) -> list[RuleMatch]:
    """What is wrong with one file or folder name."""
    if not _SUSPICIOUS.search(name) and not is_reserved_device_name(name):
        return []
    return [*check_text(name, "name"), *_illegal_characters(name), *_reserved_name(name)]


def check_text(text: str, where: str) -> list[RuleMatch]:
    """Placeholders and Jinja markers left in a text; `where` names it in the sentences ("name", "content", "key
    label"). A thousand of each are told, and of a longer one than a name can hold its beginning.
    """
    return [
        RuleMatch(Rule.UNRESOLVED_PLACEHOLDER_TOKEN, token, f"The {where} holds the unresolved placeholder {token}.")
        for token in _told(match[0] for match in _PLACEHOLDER.finditer(text))
    ] + [
        RuleMatch(Rule.LEFTOVER_JINJA_MARKER, token, f"The {where} holds the leftover template marker {token}.")
        for token in _told(jinja_markers(text))
    ]


def jinja_markers(text: str) -> Iterator[str]:
    r"""What `\{\{[^}]*\}\}|\{%[^%]*%\}` finds, in one pass: that looks at all that follows anew from each of a million
    braces."""
    expression, statement = _next_expression(text, 0), _JINJA_STATEMENT.search(text)
    while first := min(filter(None, (expression, statement)), key=re.Match.start, default=None):
        yield first[0]
        place = first.end()
        if expression is not None and expression.start() < place:
            expression = _next_expression(text, place)
        if statement is not None and statement.start() < place:
            statement = _JINJA_STATEMENT.search(text, place)


def _next_expression(text: str, place: int) -> re.Match[str] | None:
    # One that has no end is passed over whole: none that begins in it has another.
    return next((found for found in _JINJA_EXPRESSION.finditer(text, place) if found[1]), None)


def _illegal_characters(name: str) -> Iterator[RuleMatch]:
    for character in _distinct(character for character in name if character in _ILLEGAL):
        yield _illegal(character, f"The name holds {character!r}, which common file systems refuse.")
    if name.endswith("."):
        yield _illegal(".", "The name ends with a dot, which Windows drops.")
    if name.endswith(" "):
        yield _illegal(" ", "The name ends with a space, which Windows drops.")


def _illegal(character: str, detail: str) -> RuleMatch:
    return RuleMatch(Rule.ILLEGAL_FILESYSTEM_CHARACTER, character, detail)


def _reserved_name(name: str) -> Iterator[RuleMatch]:
    if is_reserved_device_name(name):
        stem = name.split(".", 1)[0]
        yield RuleMatch(Rule.RESERVED_FILESYSTEM_NAME, stem, f"{stem} is a device name of Windows.")


def check_mode(run: RunPath, run_kind: RunKind | None) -> RuleMatch | None:
    """`run_kind`, the leaf's prefix and the parent folder must all agree. `run_kind` is None where creation.json
    can't tell; then the other two must."""
    by_leaf = run.kind_by_leaf
    by_folder = RunKind.of_group(run.group)
    signals = [by_leaf, by_folder] if run_kind is None else [run_kind, by_leaf, by_folder]
    if by_folder is not None and len(set(signals)) == 1:
        return None
    parent = f"the parent folder is {run.group!r}" if run.group else "it lies straight under its project"
    said = "" if run_kind is None else f"run_kind is {run_kind.value!r}, "
    return RuleMatch(
        Rule.MODE_PREFIX_MISMATCH,
        None,
        f"The signs of the run's kind disagree: {said}the folder's name begins with {by_leaf.leaf_prefix!r}, {parent}.",
    )


def _told(tokens: Iterator[str]) -> list[str]:
    told: dict[str, None] = {}
    for token in tokens:
        told[token if len(token) <= _LONGEST_TOKEN else token[: _LONGEST_TOKEN - 1] + "…"] = None
        if len(told) == _MOST_TOKENS:
            break
    return list(told)


def _distinct(tokens: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(tokens))
