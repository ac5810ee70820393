"""Names that file systems and servers are known to lose, to refuse or to keep under another name, for trying."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Final

RESERVED: Final = r"(?i:^(?:CON|PRN|AUX|NUL|COM[1-9]|LPT[1-9])(?:\.|\Z))"
"""Servers for Windows keep these under made-up names."""

# Other control characters fare as this one does.
AWKWARD: Final[Mapping[str, str]] = {
    "a\x01": "[\x01-\x08\x0b\x0c\x0e-\x1f]",
    **{f"a{character}b": re.escape(character) for character in "\t\n\r\x7f<>\"'`$:?*|#%\\[];!&+~"},
    " a": "^ ",
    "a ": r" \Z",
    "a.": r"\.\Z",
    "CON": RESERVED,
}
"""Names of one segment, and the pattern of what each tries."""

CAPITALS: Final = ("Case", "UPPER.TXT")
"""Names to try: some storages keep names in one case alone, some of them short ones in capitals only."""

SHARP_S: Final = "\u00df"
SHARP_S_FOLDED: Final = "ss"
"""One name where letters in either case are compared by all that Unicode knows of them, and not letter by letter."""


def alters_case(listed: Collection[str]) -> bool:
    """Whether a listing has one of CAPITALS in another case than it was written in."""
    folded = {name.casefold() for name in listed}
    return any(name not in listed and name.casefold() in folded for name in CAPITALS)


def not_kept(names: Iterable[str]) -> str | None:
    """What finds the segments that fare as these awkward names did; None when there are none."""
    return "|".join(AWKWARD[name] for name in names) or None
