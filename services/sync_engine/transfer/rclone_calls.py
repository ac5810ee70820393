"""One call about each of many files. Those about small files are handed to rclone together: asked for one by one, more
time goes into asking than into the files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Generic, TypeVar

from services.sync_engine.transfer.rclone_daemon import LOCKED, ONE_GROUP, RcloneDaemon

T = TypeVar("T")

_TOGETHER_FILES = 64
_TOGETHER_BYTES = 8 << 20
_AT_ONCE = 4
_HANDED_OVER = 2
"""Calls that rclone works on at once of those that came together, and how many come so at once: eight in all, as many
as are asked for one by one."""


@dataclass(frozen=True, slots=True)
class FileCall(Generic[T]):
    """What is asked about each file. `parameters` may open what they tell of, to be closed after the call; `path` is
    for the words of a failure, `size` in bytes."""

    doing: str
    command: str
    parameters: Callable[[T, ExitStack], Mapping[str, object]]
    path: Callable[[T], bytes]
    size: Callable[[T], int]
    passing: re.Pattern[str] = LOCKED


def call_for_each(
    daemon: RcloneDaemon, about: FileCall[T], files: Sequence[T], moved: Callable[[int], None] | None = None
) -> None:
    """As `RcloneDaemon.attend` with `told`: a failure is that of one file."""
    for_each_together(daemon, files, about.size, lambda together: _call(daemon, about, together), moved)


def for_each_together(
    daemon: RcloneDaemon,
    files: Sequence[T],
    size: Callable[[T], int],
    do: Callable[[Sequence[T]], None],
    moved: Callable[[int], None] | None = None,
) -> None:
    """`RcloneDaemon.attend`, of small files many together, and of a large one alone."""
    small: list[T] = []
    large: list[T] = []
    for file in files:
        (large if size(file) > _TOGETHER_BYTES else small).append(file)
    if small:
        daemon.attend(list(_portions(small, size)), do, moved, workers=_HANDED_OVER)
    if large:
        daemon.attend([[file] for file in large], do, moved)


def _call(daemon: RcloneDaemon, about: FileCall[T], files: Sequence[T]) -> None:
    with ExitStack() as held:
        calls = [(file, about.parameters(file, held)) for file in files]
        done = [False] * len(calls)
        if daemon.takes_many and len(calls) > 1:
            inputs = [{"_path": about.command, **parameters, **ONE_GROUP} for _, parameters in calls]
            answers = daemon.call("job/batch", inputs=inputs, concurrency=_AT_ONCE)["results"]
            done = ["error" not in answer for answer in answers]
        for (file, parameters), well in zip(calls, done, strict=True):
            if not well:
                # Asked for alone, it is tried again where that helps, and what is wrong is said of this file.
                daemon.told(about.doing, about.command, [about.path(file)], about.passing, **parameters)


def _portions(files: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    portion: list[T] = []
    nbytes = 0
    for file in files:
        if portion and (len(portion) == _TOGETHER_FILES or nbytes + size(file) > _TOGETHER_BYTES):
            yield portion
            portion, nbytes = [], 0
        portion.append(file)
        nbytes += size(file)
    if portion:
        yield portion
