"""Names that rclone would change on their way to a backend: its encoders' characters, as a pattern.

rclone replaces a character that a backend can't keep by a look-alike, and shows the first one again when it lists: the
loss is visible to everybody but rclone. So such names are refused, and names that hold a look-alike themselves.
"""

from __future__ import annotations

import re

from services.sync_engine.transfer.awkward_names import RESERVED

# rclone's own form: control characters, DEL and the slash have look-alikes, whatever the backend; U+201B quotes.
_OWN = dict(zip(range(0x2401, 0x2420), range(1, 32), strict=True)) | {0x2421: 0x7F}
_NOT_OURS = "[\u2400-\u241f\u2421\u201b\uff0f\uff0e]"
_CHARACTERS = {
    "LtGt": "<>",
    "DoubleQuote": '"',
    "SingleQuote": "'",
    "BackQuote": "`",
    "Dollar": "$",
    "Colon": ":",
    "Question": "?",
    "Asterisk": "*",
    "Pipe": "|",
    "Hash": "#",
    "Percent": "%",
    "BackSlash": "\\",
    "CrLf": "\r\n",
    "Del": "\x7f",
    "Ctl": "".join(map(chr, range(1, 32))),
    "SquareBracket": "[]",
    "Semicolon": ";",
    "Exclamation": "!",
}
_EDGES = {
    "LeftSpace": "^ ",
    "LeftPeriod": r"^\.",
    "LeftTilde": "^~",
    "LeftCrLfHtVt": "^[\r\n\t\v]",
    "RightSpace": r" \Z",
    "RightPeriod": r"\.\Z",
    "RightCrLfHtVt": "[\r\n\t\v]\\Z",
}


def altered_names(encoding: str) -> re.Pattern[str]:
    """What a backend's `encoding` (names with commas) alters in one segment."""
    parts = {part.strip() for part in encoding.split(",")}
    characters = "".join(_CHARACTERS.get(part, "") for part in sorted(parts))
    patterns = [_NOT_OURS, *(_EDGES[part] for part in sorted(parts & _EDGES.keys()))]
    if {"Colon", "RightPeriod"} <= parts:
        patterns.append(RESERVED)
    if characters:
        looks = "".join(map(_look_alike, characters))
        patterns.append(f"[{re.escape(characters + looks)}]")
    return re.compile("|".join(patterns))


def as_listed(name: str) -> bytes:
    """The name that rclone's listing stands for."""
    return name.translate(_OWN).encode()


def _look_alike(character: str) -> str:
    code = ord(character)
    if code == 0x7F:
        return "\u2421"
    return chr(0x2400 + code) if code < 0x20 else chr(code + 0xFEE0)
