"""Reads labferry.yaml with environment overrides, and reports every mistake at once with its line and key."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from libs.service_kit.equipment_settings import TRANSPORT_TYPES
from libs.service_kit.mistake_words import follows_on_another, in_plain_words, key_below
from libs.service_kit.settings import Settings
from libs.service_kit.wizard_keys import take_wizard_keys

CONFIG_VARIABLE = "LABFERRY_CONFIG"
_PREFIX = "LABFERRY_"
_MAX_NODES = 100_000
_TOO_DEEP = "holds lists or mappings in each other too deeply"

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong. `line` counts from 1; 0 when no line of the file is to blame."""

    line: int
    key: str
    description: str

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        return f"{where}{self.key}: {self.description}" if self.key else f"{where}{self.description}"


class ConfigurationError(Exception):
    """The configuration can't be used. Holds every mistake found, in the order of the file."""

    def __init__(self, source: str, mistakes: list[Mistake]) -> None:
        self.source, self.mistakes = source, mistakes
        listing = "\n".join(f"  {m}" for m in mistakes)
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        super().__init__(f"{source}: {count}\n{listing}")


@dataclass(slots=True)
class _Document:
    values: Any = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)
    nodes: int = 0

    def line_of(self, path: KeyPath) -> int:
        """The line of a key, or of the nearest key above it that stands in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)


@dataclass(frozen=True, slots=True)
class LoadedConfiguration:
    """`notices`: keys that have no effect here, one sentence each."""

    settings: Settings
    notices: tuple[str, ...]
    source: str


def load_configuration(path: Path | None, environment: Mapping[str, str] = os.environ) -> LoadedConfiguration:
    """Settings from a file (or LABFERRY_CONFIG) and the environment. ConfigurationError lists every mistake."""
    if path is None and environment.get(CONFIG_VARIABLE):
        path = Path(environment[CONFIG_VARIABLE])
    source = str(path) if path else "environment"
    document = _read(path) if path else _Document(values={})
    if not isinstance(document.values, dict):
        document.mistakes.append(Mistake(1, "", "must be a mapping of keys"))
        raise ConfigurationError(source, document.mistakes)
    from_environment = _apply_environment(document, environment)
    notices, wizard_mistakes = take_wizard_keys(document.values)
    mistakes = document.mistakes + [
        Mistake(document.line_of(p), _key_name(p), description) for p, description in wizard_mistakes
    ]
    settings: Settings | None = None
    try:
        settings = Settings.model_validate(document.values)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        for problem in problems:
            if follows_on_another(problem, problems):
                continue
            location = (*_without_model_names(tuple(problem["loc"])), *key_below(problem))
            name = _key_name(location)
            if location in from_environment:
                name = f"{name} (from {from_environment[location]})"
            line = 0 if location in from_environment else document.line_of(location)
            mistakes.append(Mistake(line, name, in_plain_words(problem)))
    if mistakes or settings is None:
        raise ConfigurationError(source, sorted(mistakes, key=lambda m: (m.line, m.key)))
    return LoadedConfiguration(settings, tuple(notices), source)


def _read(path: Path) -> _Document:
    document = _Document()
    try:
        text = path.read_text(encoding="utf-8-sig")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except OSError as error:
        raise ConfigurationError(str(path), [Mistake(0, "", f"can't be read: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(str(path), [Mistake(0, "", "is not UTF-8")]) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "is not YAML"
        raise ConfigurationError(str(path), [Mistake(mark.line + 1 if mark else 0, "", problem)]) from error
    except RecursionError as error:
        raise ConfigurationError(str(path), [Mistake(0, "", _TOO_DEEP)]) from error
    try:
        document.values = {} if node is None else _convert(node, (), document)
    except RecursionError as error:
        # Deep as it stands there, or an alias that lies inside what it names.
        raise ConfigurationError(str(path), [Mistake(0, "", _TOO_DEEP)]) from error
    return document


def _convert(node: yaml.Node, path: KeyPath, document: _Document) -> Any:
    document.nodes += 1
    if document.nodes > _MAX_NODES:
        raise ConfigurationError("configuration", [Mistake(node.start_mark.line + 1, "", "is too large")])
    document.lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            line = key_node.start_mark.line + 1
            if key in mapping:
                document.mistakes.append(Mistake(line, _key_name((*path, key)), "stands here twice"))
            document.lines[(*path, key)] = line
            mapping[key] = _convert(value_node, (*path, key), document)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_convert(item, (*path, index), document) for index, item in enumerate(node.value)]
    try:
        return _scalar(node)
    except (ValueError, yaml.YAMLError):
        kind = node.tag.rpartition(":")[2]
        document.mistakes.append(Mistake(node.start_mark.line + 1, _key_name(path), f"is no valid {kind}"))
        return None


def _scalar(node: yaml.Node) -> Any:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(node)
    finally:
        loader.dispose()


def _apply_environment(document: _Document, environment: Mapping[str, str]) -> dict[KeyPath, str]:
    """LABFERRY_LIMS__ENDPOINT overrides lims.endpoint; a number picks an entry of a list. Values are read as YAML."""
    applied: dict[KeyPath, str] = {}
    for variable in sorted(environment):
        if not variable.startswith(_PREFIX) or variable == CONFIG_VARIABLE:
            continue
        segments = variable.removeprefix(_PREFIX).lower().split("__")
        path: KeyPath = tuple(int(s) if s.isdecimal() else s for s in segments)
        if path[0] not in Settings.model_fields:
            continue
        try:
            value = yaml.safe_load(environment[variable])
            _put(document.values, path, value)
        except (yaml.YAMLError, LookupError, TypeError, ValueError, RecursionError):
            document.mistakes.append(Mistake(0, variable, "does not fit the configuration"))
            continue
        applied[path] = variable
    return applied


def _put(container: Any, path: KeyPath, value: Any) -> None:
    head, rest = path[0], path[1:]
    if isinstance(container, list) != isinstance(head, int):
        raise TypeError(head)
    if not rest:
        if isinstance(container, list) and head == len(container):
            container.append(value)
        else:
            container[head] = value
        return
    if isinstance(container, dict) and container.get(head) is None:
        container[head] = [] if isinstance(rest[0], int) else {}
    elif isinstance(container, list) and head == len(container):
        container.append({})
    _put(container[head], rest, value)


def _without_model_names(location: tuple[str | int, ...]) -> KeyPath:
    names = {"function-after", "function-before"}
    plain = tuple(part for part in location if part not in names)
    # Of a union the chosen member's name stands behind its key.
    return tuple(
        part
        for before, part in zip(("", *plain), plain, strict=False)
        if before != "transport" or part not in TRANSPORT_TYPES
    )


def _key_name(path: KeyPath) -> str:
    name = ""
    for part in path:
        name += f"[{part}]" if isinstance(part, int) else (f".{part}" if name else part)
    return name
