"""Tells a wrong passphrase from a damaged file.

Version 1 of the encrypted file holds nothing that could: both make its authentication fail. So a keyed hash of the
key that opened it last is kept beside our own log. It helps a guesser no more than the encrypted file does: each guess
costs the same Argon2id. Behind it stands the file's version, so that an older one in its place is noticed.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from services.secrets.file_header import FIRST_VERSION, Header
from services.secrets.private_file import read_private, replace_with, write_beside

_CHECK_BYTES = 32
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
        return hmac.compare_digest(known[:_CHECK_BYTES], _check(key, salt))

    def version(self) -> int:
        """The version of the file that was opened last; the first when none was, or before there was a second."""
        try:
            return int(read_private(self._path).data[_CHECK_BYTES:] or FIRST_VERSION)
        except FileNotFoundError:
            return FIRST_VERSION

    def remember(self, key: bytearray, header: Header) -> None:
        if not self.recognises(key, header.salt) or self.version() != header.version:
            known = _check(key, header.salt) + str(header.version).encode()
            replace_with(write_beside(self._path, known), self._path)
