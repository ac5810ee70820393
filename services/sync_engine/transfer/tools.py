"""The foreign programs that transports call: whether they are there, and in which version (ARCHITECTURE §4)."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from services.sync_engine.transfer.tool_process import find_tool, run_tool, tool_environment
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import FailureKind, TransferError

_ANSWER_SECONDS = 20.0
_MOST_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Tool:
    """`ask` are arguments at which it tells its version, which `version` finds; `oldest` what is needed at least, None
    for any."""

    name: str
    ask: tuple[str, ...]
    version: re.Pattern[str]
    oldest: tuple[int, int] | None = None


RCLONE: Final = Tool("rclone", ("version", "--config", "/dev/null"), re.compile(r"rclone v(\d\S*)"), (1, 69))
RSYNC: Final = Tool("rsync", ("--version",), re.compile(r"rsync\s+version\s+v?(\d\S*)"), (3, 2))
SSH: Final = Tool("ssh", ("-V",), re.compile(r"OpenSSH_(\d[^\s,]*)"))


class Toolbox:
    """The tools of one kind of transport. Any thread may call any method."""

    def __init__(self, tools: Sequence[Tool] = ()) -> None:
        self._tools = tools
        self._lock = threading.Lock()
        self._versions: Mapping[str, str] = {}

    @property
    def versions(self) -> Mapping[str, str]:
        """By name; empty until they were found."""
        return self._versions

    def require(self) -> None:
        """Returns when all are there and new enough. TransferError CONFIGURATION names the one that isn't; it is looked
        for anew each time, so that installing it is enough."""
        with self._lock:
            if not self._versions:
                self._versions = {tool.name: _version(tool) for tool in self._tools}


def _version(tool: Tool) -> str:
    path = find_tool(tool.name)
    try:
        done = run_tool(
            [path, *tool.ask], environment=tool_environment(), control=TransferControl(), most_seconds=_ANSWER_SECONDS
        )
    except TransferError as error:
        raise TransferError(
            FailureKind.CONFIGURATION, f"{path} did not tell its version within {_ANSWER_SECONDS:.0f} s"
        ) from error
    # ssh tells it on the other stream.
    words = (done.stdout + done.stderr).decode(errors="replace")
    found = tool.version.search(words)
    if found is None:
        said = words.strip()[:_MOST_CHARACTERS] or f"nothing, and ended with {done.code}"
        raise TransferError(FailureKind.CONFIGURATION, f"{path} is no {tool.name} that works: it said {said}")
    if tool.oldest is not None and _numbers(found[1]) < tool.oldest:
        oldest = ".".join(map(str, tool.oldest))
        raise TransferError(FailureKind.CONFIGURATION, f"{tool.name} {oldest} or newer is needed; {path} is {found[1]}")
    return found[1]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
