"""Tells a wrong passphrase from a damaged file.

Version 1 of the encrypted file holds nothing that could: both make its authentication fail. So a keyed hash of the
key that opened it last is kept beside our own log. It helps a guesser no more than the encrypted file does: each guess
costs the same Argon2id.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from services.secrets.private_file import read_private, replace_with, write_beside

_PURPOSE = b"labferry key check 1"


def _check(key: bytearray, salt: bytes) -> bytes:
    return hmac.new(key, _PURPOSE + salt, hashlib.sha256).digest()


class KeyCheck:
    """The last key that opened the file, recognisable but not recoverable. Blocking calls."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def recognises(self, key: bytearray, salt: bytes) -> bool:
        """Whether this very key opened a file with this salt before."""
        try:
            known = read_private(self._path).data
        except FileNotFoundError:
            return False
        return hmac.compare_digest(known, _check(key, salt))

    def remember(self, key: bytearray, salt: bytes) -> None:
        if not self.recognises(key, salt):
            replace_with(write_beside(self._path, _check(key, salt)), self._path)
