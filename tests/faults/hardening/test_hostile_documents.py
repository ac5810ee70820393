"""Documents that are made to cost more than they look: in the configuration, in a run, in its cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from libs.run_tree.creation_errors import CreationUnreadableError
from libs.run_tree.creation_record import parse_creation
from libs.service_kit.config import ConfigurationError, load_configuration
from services.sync_engine.validation.content_scan import scan_text
from services.sync_engine.validation.finding import Rule
from services.sync_engine.validation.front_matter import front_matter_pieces, front_matter_problem

ALIASES = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
HOSTILE = {
    "aliases of aliases": ALIASES,
    "an alias of itself": "listen: &x {secrets: *x}\n",
    "a list in itself": "equipment: &x [*x]\n",
    "deep lists": "equipment: " + "[" * 800 + "]" * 800,
    "deep maps": "".join(f"{' ' * n}k:\n" for n in range(600)),
    "a date that is none": "state_dir: 2026-99-99\n",
    "a number that is none": "logging: {level: !!int abc}\n",
    "bytes that are none": "state_dir: !!binary '%'\n",
    "an object of Python": "state_dir: !!python/object/apply:os.system [false]\n",
    "an unknown alias": "state_dir: *nowhere\n",
    "a huge number": "event_log: {checkpoints: {every_events: " + "9" * 10_000 + "}}\n",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_configuration(text: str, tmp_path: Path) -> None:
    path = tmp_path / "labferry.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as wrong:
        load_configuration(path, {})
    assert len(str(wrong.value)) < 100_000


@pytest.mark.parametrize("value", ["[" * 800, "2026-99-99", "!!int abc", "!!binary '%'", ALIASES.splitlines()[1]])
def test_an_override_from_the_environment(value: str, tmp_path: Path) -> None:
    path = tmp_path / "labferry.yaml"
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigurationError):
        load_configuration(path, {"LABFERRY_LIMS__ENDPOINT": value})


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_front_matter(text: str) -> None:
    markdown = f"---\n{text}\n---\nText\n"
    front_matter_problem(markdown)
    pieces = front_matter_pieces(markdown)
    assert sum(len(piece.text) for piece in pieces) <= 2 * len(markdown)


COSTLY = {
    "brackets": "[" * 5000 + "]" * 5000,
    "braces": "{a: " * 3000,
    "brackets behind a key": "a: " + "[" * 5000,
    "a hundred thousand values": "a: [" + "x, " * 100_000 + "]",
    "anchors": "&a " * 5000,
    "questions": "? " * 7000,
    "dashes without an end": "- " * 7000 + "x",
    "dashes that are no YAML": "- " * 7000 + "{{ x }} y: 'z",
}
MOST_TOKENS = 20_000
"""More than two a character of the longest front matter that is composed can't be."""


@pytest.mark.parametrize("text", COSTLY.values(), ids=COSTLY.keys())
def test_front_matter_costs_no_more_than_its_length(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its work is counted: with each token the scanner looks at every beginning of what may still become a key."""
    looked_at = 0
    look = yaml.SafeLoader.stale_possible_simple_keys

    def counting(loader: Any) -> None:
        nonlocal looked_at
        looked_at += len(loader.possible_simple_keys) + 1
        look(loader)

    monkeypatch.setattr(yaml.SafeLoader, "stale_possible_simple_keys", counting)
    matches = scan_text("README.md", f"---\n{text}\n---\n")
    assert Rule.MALFORMED_YAML_FRONT_MATTER in {match.rule for match in matches}
    assert looked_at < 40 * MOST_TOKENS


def test_a_marker_in_a_front_matter_that_is_too_much_is_still_found() -> None:
    matches = scan_text("README.md", f"---\na: {'[' * 5000}\nlabel: <name>\n---\n")
    assert {match.rule for match in matches} == {Rule.MALFORMED_YAML_FRONT_MATTER, Rule.UNRESOLVED_PLACEHOLDER_TOKEN}


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_deep_json_in_a_run(opening: bytes) -> None:
    with pytest.raises(CreationUnreadableError):
        parse_creation(opening * 200_000)
