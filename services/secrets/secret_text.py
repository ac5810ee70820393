"""A secret value that doesn't show itself."""

from __future__ import annotations

from typing import final


@final
class SecretText:
    """Text that must not be printed, logged or put into an error. Only `reveal` gives it out.

    Python can't promise that the text is gone from memory when the object is: strings are copied and not erased.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "SecretText(…)"

    def __reduce__(self) -> str:
        raise TypeError("a secret is not to be pickled")
