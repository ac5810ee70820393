"""The values that a JSON document holds, and the one way in which run-tree files are decoded and encoded.

Nothing may be lost between reading and writing: what a decoder would silently drop or change (a key given twice, a
number that no float holds) is refused instead.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import TypeAlias

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class NotJsonError(ValueError):
    """The bytes are no JSON that can be read and written back without loss; the message says where or why."""


def _refuse_constant(text: str) -> float:
    raise NotJsonError(f"{text} is no JSON value")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise NotJsonError(f"the number {text[:40]} is too large to be kept")
    return number


def _unique_keys(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise NotJsonError(f"the key {key!r} stands twice in one object")
            seen.add(key)
    return members


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_unique_keys)
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def decode_json(content: bytes) -> JsonValue:
    """The document. NotJsonError when it is no JSON, not UTF-8, or could not be written back as it was."""
    try:
        text = content.decode("utf-8")
        if text.startswith("\ufeff"):
            raise NotJsonError("it begins with a byte order mark (BOM)")
        document: JsonValue = _DECODER.decode(text)
    except UnicodeDecodeError as error:
        raise NotJsonError(f"byte {error.start} is not UTF-8") from error
    except RecursionError as error:
        raise NotJsonError("it is nested too deeply") from error
    except ValueError as error:
        raise NotJsonError(str(error)) from error
    return document


def encode_json(document: Mapping[str, JsonValue]) -> bytes:
    """Compact one-line UTF-8, non-ASCII unescaped, no final newline (FORMATS §1)."""
    text = _ENCODER.encode(document)
    # A lone surrogate can't be UTF-8; it came in as an escape and goes out as one.
    return _LONE_SURROGATE.sub(lambda match: f"\\u{ord(match.group()):04x}", text).encode("utf-8")
