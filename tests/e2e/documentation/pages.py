"""What a page of the documentation says: its commands with their output, its scripts, its tables and its links."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_EXITS = re.compile(r"\s+# exits (\d+)$")
_SCRIPT_NAME = re.compile(r"# ([a-z_]+\.py): ")
_LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")


@dataclass(frozen=True)
class Command:
    """One documented command, the exit status that it must have, and the lines that the page shows below it."""

    text: str
    status: int
    shown: Sequence[str]


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: Path
    text: str

    @classmethod
    def read(cls, name: str) -> Page:
        path = REPOSITORY / name
        return cls(path, path.read_text(encoding="utf-8"))

    def blocks(self, language: str) -> Iterator[str]:
        return (m[2] for m in _FENCE.finditer(self.text) if m[1] == language)

    def commands(self) -> list[Command]:
        return [command for block in self.blocks("console") for command in _commands(block.splitlines())]

    def scripts(self) -> dict[str, str]:
        """Python blocks by the file name that their first line gives."""
        scripts = {}
        for block in self.blocks("python"):
            name = _SCRIPT_NAME.match(block)
            assert name, (
                f"{self.path.name}: a Python block begins with '# file_name.py: what it does', not {block[:60]!r}"
            )
            scripts[name[1]] = block
        return scripts

    def table(self, heading: str) -> list[list[str]]:
        """The cells of every row of the first table below a heading, without its head."""
        _, found, below = self.text.partition(f"\n{heading}\n")
        assert found, f"{self.path.name} has no heading {heading!r}"
        rows: list[list[str]] = []
        for line in below.splitlines():
            if line.startswith("|"):
                rows.append([cell.strip() for cell in line.strip("|").split("|")])
            elif rows or line.startswith("#"):
                break
        assert len(rows) > 2, f"{self.path.name}: no table below {heading!r}"
        return rows[2:]

    def links(self) -> list[str]:
        """Targets of links to other files."""
        return [target for target in _LINK.findall(self.text) if "://" not in target]


def pages() -> list[str]:
    """README.md and everything in docs/, relative to the repository."""
    found = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
    return [str(path.relative_to(REPOSITORY)) for path in found]


def bare(cell: str) -> str:
    """A cell that holds nothing but code, without its backticks."""
    assert cell.startswith("`") and cell.endswith("`"), cell
    return cell[1:-1]


def _commands(lines: Sequence[str]) -> Iterator[Command]:
    rest = list(lines)
    while rest:
        line = rest.pop(0)
        assert line.startswith("$ "), f"output without a command: {line!r}"
        text = line[2:]
        while text.endswith("\\"):
            text = text[:-1] + rest.pop(0).strip()
        shown = []
        while rest and not rest[0].startswith("$ "):
            shown.append(rest.pop(0))
        exits = _EXITS.search(text)
        yield Command(_EXITS.sub("", text), int(exits[1]) if exits else 0, [s for s in shown if s.strip()])
