"""The five rules of names and content, each with what fires and what doesn't (SPEC §3)."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.run_tree.run_path import RunKind, RunPath
from services.sync_engine.validation.finding import Rule
from services.sync_engine.validation.rules import check_mode, check_name, check_text, jinja_markers


def fired(name: str, rule: Rule) -> list[str | None]:
    return [match.token for match in check_name(name) if match.rule is rule]


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("<operator>.txt", ["<operator>"]),
        ("a<_x1>b<Y>c<_x1>", ["<_x1>", "<Y>"]),
        ("<1a>", []),
        ("<>", []),
        ("< a>", []),
        ("<a-b>", []),
        ("a<b", []),
    ],
)
def test_placeholders(name: str, tokens: list[str]) -> None:
    assert fired(name, Rule.UNRESOLVED_PLACEHOLDER_TOKEN) == tokens


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("{{ operator }}.txt", ["{{ operator }}"]),
        ("{{}}", ["{{}}"]),
        ("{% if x %}a{% endif %}", ["{% if x %}", "{% endif %}"]),
        ("{{ a\nb }}", ["{{ a\nb }}"]),
        ("{{ a }", []),
        ("{ a }", []),
        ("{# a #}", []),
        ("{% 5%2 %}", []),
    ],
)
def test_jinja_markers(name: str, tokens: list[str]) -> None:
    assert fired(name, Rule.LEFTOVER_JINJA_MARKER) == tokens


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("a:b:c", [":"]),
        ('<>:"/\\|?*', list('<>:"/\\|?*')),
        ("a\0b", ["\0"]),
        ("a\nb\tc\x1f", ["\n", "\t", "\x1f"]),
        ("dot.", ["."]),
        ("space ", [" "]),
        ("...", ["."]),
        (" leading space", []),
        (".hidden", []),
        ("a.b.c", []),
        ("ünï·光", []),
        ("\x7f", []),
        ("\udcff\udcfe", []),
    ],
)
def test_illegal_characters_each_once(name: str, tokens: list[str]) -> None:
    assert fired(name, Rule.ILLEGAL_FILESYSTEM_CHARACTER) == tokens


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("CON", ["CON"]),
        ("con.txt", ["con"]),
        ("Aux.tar.gz", ["Aux"]),
        ("lpt9", ["lpt9"]),
        ("COM1.", ["COM1"]),
        ("COM0", []),
        ("COM10", []),
        ("CONFOCAL_01", []),
        ("a.con", []),
        ("CON1", []),
    ],
)
def test_reserved_names(name: str, tokens: list[str]) -> None:
    assert fired(name, Rule.RESERVED_FILESYSTEM_NAME) == tokens


def test_an_ordinary_name_is_fine() -> None:
    assert check_name("Run_2026-04-17T14-32 (copy) #2.tif") == []


def test_content_is_looked_at_for_markers_only() -> None:
    assert [match.token for match in check_text("a: <b>\n{{ c }} CON *?", "content")] == ["<b>", "{{ c }}"]


@pytest.mark.parametrize("kind", list(RunKind))
def test_agreeing_signs(kind: RunKind) -> None:
    run = RunPath("EQ", "p", kind.group, kind.leaf_prefix + "x")
    assert check_mode(run, kind) is None
    assert check_mode(run, None) is None


@pytest.mark.parametrize(
    ("group", "leaf", "kind", "said"),
    [
        ("Runs", "Run_x", RunKind.TEST, ["run_kind is 'test'", "'Run_'", "'Runs'"]),
        ("TestRuns", "Run_x", RunKind.EXPERIMENTAL, ["'Run_'", "'TestRuns'"]),
        ("Runs", "TestRun_x", None, ["'TestRun_'", "'Runs'"]),
        ("", "Run_x", RunKind.EXPERIMENTAL, ["straight under its project"]),
        ("", "Run_x", None, ["straight under its project"]),
    ],
)
def test_disagreeing_signs_are_named(group: str, leaf: str, kind: RunKind | None, said: list[str]) -> None:
    match = check_mode(RunPath("EQ", "p", group, leaf), kind)
    assert match is not None
    assert match.rule is Rule.MODE_PREFIX_MISMATCH
    assert all(words in match.detail for words in said)


@given(st.lists(st.sampled_from(["{", "}", "%", "x", "{{", "}}", "{%", "%}"]), max_size=14).map("".join))
def test_template_markers_are_those_of_the_expression(text: str) -> None:
    assert list(jinja_markers(text)) == re.findall(r"\{\{[^}]*\}\}|\{%[^%]*%\}", text)


@pytest.mark.parametrize("text", ["{{" * 500_000, "{{ x " * 300_000 + "}", "{{}" * 200_000, "{% {{ " * 200_000])
def test_a_million_braces_are_looked_at_once(text: str) -> None:
    assert check_text(text, "content") == []


def test_a_million_tokens_and_an_endless_one_are_told_in_part() -> None:
    tokens = [match.token for match in check_text("".join(f"<t{n}>" for n in range(100_000)), "content")]
    assert tokens == [f"<t{n}>" for n in range(1000)]
    (match,) = check_text("{{" + "x" * 1_000_000 + "}}", "content")
    assert match.token == "{{" + "x" * 252 + "…"
    assert len(match.detail) < 400
