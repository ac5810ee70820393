"""What is wrong with a value of the configuration, in the words of whoever wrote it. Pure."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence

from pydantic_core import ErrorDetails

from libs.service_kit.equipment_settings import TRANSPORT_TYPES
from libs.service_kit.settings_block import WrongBelowError

_UNQUOTED = (bool, int, float, datetime.date)


def follows_on_another(problem: ErrorDetails, problems: Sequence[ErrorDetails]) -> bool:
    """A list is told to be too short when its only entry is wrong."""
    above = problem["loc"]
    return problem["type"] == "too_short" and any(
        len(p["loc"]) > len(above) and p["loc"][: len(above)] == above for p in problems
    )


def key_below(problem: ErrorDetails) -> tuple[str | int, ...]:
    """From the place that pydantic names to the key to change."""
    error = problem.get("ctx", {}).get("error")
    return error.key if isinstance(error, WrongBelowError) else ()


def in_plain_words(problem: ErrorDetails) -> str:
    """Never with the value itself, which may be a password in the wrong place."""
    kind = problem["type"]
    if kind == "extra_forbidden":
        return "is not a key of Labferry"
    if kind == "union_tag_not_found":
        return "type is missing"
    if kind == "union_tag_invalid":
        return "type must be one of " + ", ".join(TRANSPORT_TYPES)
    if kind == "missing":
        return "is missing"
    if kind in ("string_type", "path_type"):
        # YAML makes a number of 18:00, and a truth of yes.
        return "must be text" + (": put it into quotes" if isinstance(problem["input"], _UNQUOTED) else "")
    if kind in ("tuple_type", "list_type"):
        return "must be a list"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return "must be a mapping of keys"
    if kind == "too_short":
        least = problem["ctx"]["min_length"]
        return f"must hold at least {least} {'entry' if least == 1 else 'entries'}"
    return re.sub("^Input should be", "must be", problem["msg"].removeprefix("Value error, "))
