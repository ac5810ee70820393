"""Every command of README.md and docs/ is run, in order, and must end and print as its page says."""

from __future__ import annotations

import pytest

from tests.e2e.documentation.pages import Page, pages
from tests.e2e.documentation.workplace import UP, Workplace

ELSEWHERE = {
    # The same play, by its own module: tests/e2e/test_demo.py.
    "make demo",
    "make demo RUN=/data/scan7",
    # These very tests.
    "make test",
    # `labferry up`, which is all that the target calls: tests/e2e/test_up.py.
    "make up CONFIG=.demo/labferry.yaml",
    # By workplace.py, which starts and ends the services so.
    UP,
}
_PATIENCE = 60.0
_WITH_COMMANDS = [name for name in pages() if Page.read(name).commands()]


def test_the_pages_with_commands() -> None:
    named = ("operator", "integrator", "cluster-admin", "developer", "auditor")
    wanted = {"README.md", *(f"docs/{name}.md" for name in named)}
    assert wanted <= set(_WITH_COMMANDS)


def test_nothing_is_left_out_that_no_page_has() -> None:
    documented = {command.text for name in _WITH_COMMANDS for command in Page.read(name).commands()}
    assert documented >= ELSEWHERE


@pytest.mark.parametrize("name", _WITH_COMMANDS)
def test_the_commands_of(name: str, place: Workplace) -> None:
    page = Page.read(name)
    for script, text in page.scripts().items():
        (place.folder / script).write_text(place.literal(text), encoding="utf-8")
    with place.shell() as shell:
        for command in page.commands():
            if command.text in ELSEWHERE:
                continue
            ended = shell.run(place.literal(command.text), _PATIENCE)
            assert ended.status == command.status, f"$ {command.text}\n{ended.output}"
            assert not (lacking := ended.lacks([place.literal(s) for s in command.shown])), (
                f"$ {command.text}\nnot printed: {lacking}\n{ended.output}"
            )
