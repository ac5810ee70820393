"""A run's identity: its path below the equipment's local root, and the rules for the names in it (SPEC §1)."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path, PurePosixPath

_EQUIPMENT_ID = re.compile(r"[A-Z][A-Z0-9_]*")
_EQUIPMENT_ID_LENGTH = 32
_NAME_BYTES = 255
_FORBIDDEN_IN_PROJECT = frozenset('<>:"/\\|?*')
_RESERVED = frozenset(
    {"CON", "PRN", "AUX", "NUL", *(f"COM{n}" for n in range(1, 10)), *(f"LPT{n}" for n in range(1, 10))}
)


class RunPathError(ValueError):
    """A text that names no run; its message is one plain sentence."""


class PathOutsideRootError(ValueError):
    """A path, or a symlink on the way, leads out of the root that it must stay in."""


class RunKind(StrEnum):
    """Kind of acquisition, as `creation.json` spells it."""

    EXPERIMENTAL = "experimental"
    TEST = "test"

    @property
    def group(self) -> str:
        """Folder of the project that holds runs of this kind."""
        return "Runs" if self is RunKind.EXPERIMENTAL else "TestRuns"

    @property
    def leaf_prefix(self) -> str:
        """What the folder names of such runs begin with."""
        return "Run_" if self is RunKind.EXPERIMENTAL else "TestRun_"

    @staticmethod
    def of_leaf(leaf: str) -> RunKind | None:
        """The kind that a folder name tells; None when the folder is no run."""
        if leaf.startswith("Run_"):
            return RunKind.EXPERIMENTAL
        return RunKind.TEST if leaf.startswith("TestRun_") else None

    @staticmethod
    def of_group(group: str) -> RunKind | None:
        """The kind that a project's subfolder holds; None for any other folder."""
        return _OF_GROUP.get(group)


_OF_GROUP = {kind.group: kind for kind in RunKind}


def leads_into_run(path: bytes) -> bool:
    """Whether a folder below a project's is, or lies in, a run or a folder of runs, and so is none of its own."""
    first = os.fsdecode(path.split(b"/", 1)[0])
    return RunKind.of_group(first) is not None or RunKind.of_leaf(first) is not None


def is_reserved_device_name(name: str) -> bool:
    """True for the names that Windows keeps for devices: the part before the first dot, any case."""
    return name.split(".", 1)[0].upper() in _RESERVED


def equipment_id_problem(equipment_id: str) -> str | None:
    """What is wrong with an equipment id, one sentence; None when it is right (SPEC §1)."""
    if not equipment_id:
        return "The equipment id is empty."
    if len(equipment_id) > _EQUIPMENT_ID_LENGTH:
        return f"The equipment id has {len(equipment_id)} characters; {_EQUIPMENT_ID_LENGTH} are allowed."
    if not _EQUIPMENT_ID.fullmatch(equipment_id):
        return f"The equipment id {equipment_id!r} must be capitals, digits and '_', with a capital first."
    return None


def project_name_problem(name: str) -> str | None:
    """What makes a project folder's name unsafe, one sentence; None when it is safe (SPEC §1)."""
    if not name:
        return "The project name is empty."
    if len(name) > _NAME_BYTES:
        return f"The project name has {len(name)} characters; {_NAME_BYTES} are allowed."
    outside = next((c for c in name if not " " <= c <= "~"), None)
    if outside is not None:
        return f"The project name holds {outside!r}; only printable ASCII is allowed."
    forbidden = next((c for c in name if c in _FORBIDDEN_IN_PROJECT), None)
    if forbidden is not None:
        return f"The project name holds {forbidden!r}, which file systems refuse."
    if name != name.strip(" "):
        return "The project name begins or ends with a space."
    if name.endswith("."):
        return "The project name ends with a dot."
    if is_reserved_device_name(name):
        return f"The project name {name!r} is a device name of Windows."
    return None


def run_leaf(kind: RunKind, started: datetime) -> str:
    """Folder name of a run that began then: `Run_2026-04-17T14-32`, UTC minutes. `started` must be aware."""
    if started.tzinfo is None:
        raise ValueError("a run's start needs a time zone")
    return f"{kind.leaf_prefix}{started.astimezone(UTC):%Y-%m-%dT%H-%M}"


@dataclass(frozen=True, slots=True, order=True)
class RunPath:
    """Where a run lies below `local_root`. `group` is "Runs" or "TestRuns", or "" for a run straight under its project.
    A project's own folder is queued like a run: `leaf` and `group` are "" then.

    Segments that aren't UTF-8 on disk hold surrogate escapes; such a run can be found by a walk, not named by a caller.
    """

    equipment_id: str
    project: str
    group: str
    leaf: str

    @classmethod
    def parse(cls, text: str) -> RunPath:
        """The run that a caller's text names. RunPathError says in one sentence why it names none."""
        if not text:
            raise RunPathError("The run's path is empty.")
        if "\0" in text:
            raise RunPathError("The run's path holds a NUL character.")
        if text.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", text):
            raise RunPathError(
                f"The run's path {text!r} is absolute; it must be relative to the equipment's local_root."
            )
        segments = text.split("/")
        if any(part in (".", "..") for part in re.split(r"[/\\]", text)):
            raise RunPathError(f"The run's path {text!r} holds '.' or '..'.")
        if "" in segments:
            raise RunPathError(f"The run's path {text!r} holds an empty segment.")
        if len(segments) not in (2, 3, 4) or (len(segments) == 2 and RunKind.of_leaf(segments[1]) is not None):
            raise RunPathError(
                f"The run's path {text!r} has {len(segments)} segments; it must read EQUIPMENT/project/Runs/Run_… or "
                "EQUIPMENT/project/TestRuns/TestRun_…, or EQUIPMENT/project for what lies beside a project's runs."
            )
        return cls._from_segments(text, segments)

    @classmethod
    def _from_segments(cls, text: str, segments: list[str]) -> RunPath:
        equipment_id, project, *groups, leaf = [*segments, ""] if len(segments) == 2 else segments
        problem = equipment_id_problem(equipment_id)
        if problem:
            raise RunPathError(problem)
        too_long = next((part for part in segments if len(os.fsencode(part)) > _NAME_BYTES), None)
        if too_long is not None:
            raise RunPathError(f"The segment {too_long[:40]!r}… of the run's path is longer than {_NAME_BYTES} bytes.")
        group = groups[0] if groups else ""
        if group and RunKind.of_group(group) is None:
            raise RunPathError(f"The run's path {text!r} must lie in 'Runs' or 'TestRuns', not in {group!r}.")
        if leaf and RunKind.of_leaf(leaf) is None:
            raise RunPathError(f"{leaf!r} is no run's folder; it must begin with 'Run_' or 'TestRun_'.")
        return cls(equipment_id, project, group, leaf)

    def __str__(self) -> str:
        return "/".join(part for part in (self.equipment_id, self.project, self.group, self.leaf) if part)

    @property
    def below_equipment(self) -> PurePosixPath:
        """The run's path below its equipment's folder, here and at every destination."""
        return PurePosixPath(self.project, self.group, self.leaf)

    @property
    def is_project(self) -> bool:
        """Whether this is a project's own folder: its files and its cache, without its runs."""
        return not self.leaf

    @property
    def kind_by_leaf(self) -> RunKind:
        """The kind that the folder's name tells. A project counts as experimental (FORMATS §3)."""
        if self.is_project:
            return RunKind.EXPERIMENTAL
        kind = RunKind.of_leaf(self.leaf)
        if kind is None:
            raise RunPathError(f"{self.leaf!r} is no run's folder; it must begin with 'Run_' or 'TestRun_'.")
        return kind


def resolve_inside(root: Path, relative: str) -> Path:
    """The real place of `relative` below `root`, symlinks resolved; it need not exist.

    Raises PathOutsideRootError for absolute paths, NUL, "..", and whatever a symlink leads out of the root.
    """
    if not relative or "\0" in relative:
        raise PathOutsideRootError(f"{relative!r} is no path.")
    if relative.startswith("/") or ".." in relative.split("/"):
        raise PathOutsideRootError(f"{relative!r} climbs out of its root.")
    real_root = os.path.realpath(root)
    try:
        resolved = os.path.realpath(os.path.join(real_root, relative))
    except OSError as error:
        # A folder on the way became a symlink, or a symlink a folder, between two looks.
        raise PathOutsideRootError(f"{relative!r} can't be followed: {error.strerror}.") from error
    if os.path.commonpath((real_root, resolved)) != real_root:
        raise PathOutsideRootError(f"{relative!r} leads out of its root through a symlink.")
    return Path(resolved)
