"""What a tool's end means: the first row of its table that fits the exit code and the words decides."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from services.sync_engine.transfer.transport import FailureKind, TransferError

KILLED: Final = (*range(-64, 0), *range(129, 193))
"""Ends by a signal: as the kernel tells this process, and as a shell or ssh tells of what it ran."""

_MOST_CHARACTERS = 2000
_QUOTED = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_SECRETS = (
    # user:password@ of an address, and options of a connection string or configuration.
    (re.compile(r"(://[^/@:\s]*):[^@/\s]+@"), r"\1:***@"),
    (
        re.compile(
            r"(?i)\b([\w-]*(?:pass|password|secret|token|access_key_id|key_pem)[\w-]*)(\"?\s*[=:]\s*)(\"[^\"]*\"|'[^']*'|[^\s,:;}]+)"
        ),
        r"\1\2***",
    ),
    # What stands behind the question mark of an address: signatures of S3 and of Azure.
    (re.compile(r"(://[^\s?\"']*\?)[^\s\"']+"), r"\1***"),
    (re.compile(r"(?i)(authorization:?\s+\w+\s+)\S+"), r"\1***"),
)


class _LogLine(msgspec.Struct, frozen=True):
    msg: str


_LOG_LINE = msgspec.json.Decoder(_LogLine)


@dataclass(frozen=True, slots=True)
class FailureRow:
    """`codes` empty: any exit code. `words` None: whatever was said."""

    kind: FailureKind
    codes: frozenset[int] = frozenset()
    words: re.Pattern[str] | None = None

    def fits(self, code: int | None, text: str) -> bool:
        return (not self.codes or code in self.codes) and (self.words is None or self.words.search(text) is not None)


def said(kind: FailureKind, words: str) -> FailureRow:
    """A row for words, whatever the exit code."""
    return FailureRow(kind, words=re.compile(words, re.IGNORECASE | re.MULTILINE))


def ended_saying(kind: FailureKind, code: int, words: str) -> FailureRow:
    """A row for an exit code with words."""
    return FailureRow(kind, frozenset({code}), re.compile(words, re.IGNORECASE))


def ended(kind: FailureKind, *codes: int) -> FailureRow:
    """A row for exit codes, whatever was said."""
    return FailureRow(kind, codes=frozenset(codes))


def tool_failure(
    table: Sequence[FailureRow], doing: str, code: int | None, words: str, paths: Sequence[bytes] = ()
) -> TransferError:
    """The failure of a tool while `doing`. What no row knows counts as NETWORK: trying again harms nothing and ends by
    the retry schedule."""
    words = "\n".join(map(_spoken, words.splitlines()))
    # What a tool said before somebody killed it here is not why it ended.
    meant = "" if code is not None and code < 0 else without_names(words, paths)
    kind = next((row.kind for row in table if row.fits(code, meant)), FailureKind.NETWORK)
    status = "" if code is None else f" (exit status {code})"
    return TransferError(kind, f"{doing}{status}: {scrubbed(words) or 'it gave no reason'}", paths)


def _spoken(line: str) -> str:
    """What a line of rclone's log says; any other line is said as it is."""
    try:
        return _LOG_LINE.decode(line).msg
    except msgspec.DecodeError:
        return line


def without_names(words: str, paths: Sequence[bytes] = ()) -> str:
    """The words but for addresses and names in double quotes, and for the given paths: a file may be called
    `read-only` or `507`, and that says nothing of what went wrong."""
    for path in paths:
        place = path.decode(errors="replace")
        words = words.replace(place, "").replace("/" + place.rpartition("/")[2], "/")
    return _QUOTED.sub('""', words)


def scrubbed(words: str) -> str:
    """The words without what looks like a credential, and not longer than people read."""
    text = words.strip()
    for pattern, shown in _SECRETS:
        text = pattern.sub(shown, text)
    return text if len(text) <= _MOST_CHARACTERS else "…" + text[-_MOST_CHARACTERS:]
