"""For which piece of work the engine does what it does just now: leases of secrets name it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_UNNAMED = "looking at a destination"
_purpose: ContextVar[str] = ContextVar("purpose", default=_UNNAMED)


def present_purpose() -> str:
    """Printable and short."""
    return _purpose.get()


@contextmanager
def working_for(purpose: str) -> Iterator[None]:
    """Whatever is begun while it is entered, in threads and tasks too, is for this purpose."""
    token = _purpose.set(purpose)
    try:
        yield
    finally:
        _purpose.reset(token)
