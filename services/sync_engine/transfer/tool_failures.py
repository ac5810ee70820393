"""What a tool's end means: the first row of its table that fits the exit code and the words decides."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from services.sync_engine.transfer.transport import FailureKind, TransferError

_MOST_CHARACTERS = 2000
_SECRETS = (
    # user:password@ of an address, and options of a connection string or configuration.
    (re.compile(r"(://[^/@:\s]*):[^@/\s]+@"), r"\1:***@"),
    (
        re.compile(
            r"(?i)\b([\w-]*(?:pass|password|secret|token|access_key_id|key_pem)[\w-]*)(\"?\s*[=:]\s*)(\"[^\"]*\"|'[^']*'|[^\s,:;}]+)"
        ),
        r"\1\2***",
    ),
    (re.compile(r"(?i)(authorization:?\s+\w+\s+)\S+"), r"\1***"),
)


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
    return FailureRow(kind, words=re.compile(words, re.IGNORECASE))


def ended(kind: FailureKind, *codes: int) -> FailureRow:
    """A row for exit codes, whatever was said."""
    return FailureRow(kind, codes=frozenset(codes))


def tool_failure(
    table: Sequence[FailureRow], doing: str, code: int | None, words: str, paths: Sequence[bytes] = ()
) -> TransferError:
    """The failure of a tool while `doing`. What no row knows counts as NETWORK: trying again harms nothing and ends by
    the retry schedule."""
    kind = next((row.kind for row in table if row.fits(code, words)), FailureKind.NETWORK)
    status = "" if code is None else f" (exit status {code})"
    return TransferError(kind, f"{doing}{status}: {scrubbed(words) or 'it gave no reason'}", paths)


def scrubbed(words: str) -> str:
    """The words without what looks like a credential, and not longer than people read."""
    text = words.strip()
    for pattern, shown in _SECRETS:
        text = pattern.sub(shown, text)
    return text if len(text) <= _MOST_CHARACTERS else "…" + text[-_MOST_CHARACTERS:]
