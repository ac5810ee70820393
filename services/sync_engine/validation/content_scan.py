"""Looking into files that a template rendered, and into no others (SPEC §3): acquired data is full of angle
brackets.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass

from libs.run_tree.beneath import open_to_read
from libs.run_tree.creation_record import CreationRecord
from services.sync_engine.validation.front_matter import front_matter_pieces, front_matter_problem
from services.sync_engine.validation.rules import RuleMatch, check_text
from services.sync_engine.validation.soft_rules import malformed_front_matter

_MIB = 1 << 20
_NUL_CHECK_BYTES = 8 * 1024
_README = "README.md"
_MARKDOWN = ".md"
_RENDERED_BY = ".jinja"

DEFAULT_EXTENSIONS = frozenset(
    [".txt", ".md", ".csv", ".tsv", ".json", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".conf", ".xml", ".sh", ".py"]
)


@dataclass(frozen=True, slots=True)
class ContentScan:
    """The `validator` settings. Extensions begin with a dot and are compared in lower case; size in MiB."""

    extensions: frozenset[str] = DEFAULT_EXTENSIONS
    max_mib: float = 5

    def takes(self, name: str) -> bool:
        """Whether files of this name are looked into at all."""
        return os.path.splitext(name)[1].lower() in self.extensions


class RenderedFiles:
    """Which files of one run a template rendered."""

    def __init__(self, creation: CreationRecord | None) -> None:
        self._affected = frozenset(creation.files_affected if creation else ())
        self._template = creation.template_source_path if creation else None

    def among(self, folder: str, names: Iterable[str]) -> set[str]:
        """Those of the names in the run's `folder` ("" is the run itself) that were rendered."""
        templates = self._templates_for(folder)
        prefix = f"{folder}/" if folder else ""
        return {
            name
            for name in names
            if prefix + name == _README or prefix + name in self._affected or name + _RENDERED_BY in templates
        }

    def template_folder(self, folder: str) -> str | None:
        """Where the template of the run's `folder` lies, reachable or not; None when the run names no template."""
        if self._template is None or not os.path.isabs(self._template):
            return None
        return os.path.join(self._template, folder)

    def _templates_for(self, folder: str) -> frozenset[str]:
        template = self.template_folder(folder)
        if template is None:
            return frozenset()
        try:
            return frozenset(os.listdir(template))
        except (OSError, ValueError):
            # The template lies on the machine that made the run; most often it can't be reached from here, which is
            # legal.
            return frozenset()


def scan_content(path: bytes, settings: ContentScan) -> list[RuleMatch]:
    """What is wrong with the content of a rendered file; nothing for a file that the settings exclude.

    OSError as the system says when it can't be read.
    """
    if not settings.takes(os.fsdecode(path)):
        return []
    descriptor = open_to_read(path)
    with open(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > settings.max_mib * _MIB:
            return []
        content = stream.read(_NUL_CHECK_BYTES)
        if b"\0" in content:
            return []
        content += stream.read()
    return scan_text(os.fsdecode(path), content.decode("utf-8", errors="replace"))


def scan_text(name: str, text: str) -> list[RuleMatch]:
    """What is wrong with the text of a rendered file of this name."""
    if os.path.splitext(name)[1].lower() != _MARKDOWN:
        return check_text(text, "content")
    matches = (
        match
        for piece in front_matter_pieces(text)
        for match in check_text(piece.text, f"front matter's key {piece.key_path!r}")
    )
    return list(dict.fromkeys([*matches, *malformed_front_matter(front_matter_problem(text))]))
