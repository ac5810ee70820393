"""What can be wrong with the bytes of an encrypted file."""

from __future__ import annotations


class FormatError(ValueError):
    """The bytes are no encrypted file, or a damaged one. The message quotes none of them."""


class OtherVersionError(ValueError):
    """A well-formed file of another version."""

    def __init__(self, version: str) -> None:
        super().__init__(f"version {version}")
        self.version = version


class KeyMismatchError(ValueError):
    """The key does not open the ciphertext: another key, or altered bytes."""
