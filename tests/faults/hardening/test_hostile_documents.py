"""Documents that are made to cost more than they look: in the configuration, in a run, in its cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from libs.run_tree.creation_errors import CreationUnreadableError
from libs.run_tree.creation_record import parse_creation
from libs.service_kit.config import ConfigurationError, load_configuration
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


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_deep_json_in_a_run(opening: bytes) -> None:
    with pytest.raises(CreationUnreadableError):
        parse_creation(opening * 200_000)
