"""Version 1 of the encrypted file (FORMATS §8), as ExLab-Wizard reads and writes it. Pure."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
from argon2.low_level import Type, hash_secret_raw
from cryptography.fernet import Fernet, InvalidToken

from services.secrets.secret_text import SecretText

VERSION = 1
SALT_BYTES = 16
_TIME_COST, _MEMORY_KIB, _PARALLELISM, _KEY_BYTES = 3, 65_536, 4, 32
_FERNET_OVERHEAD = 1 + 8 + 16 + 32
_FERNET_VERSION = 0x80


class FormatError(ValueError):
    """The bytes are not a file of version 1. The message quotes none of them."""


class OtherVersionError(ValueError):
    """A well-formed file of another version."""

    def __init__(self, version: str) -> None:
        super().__init__(f"version {version}")
        self.version = version


class KeyMismatchError(ValueError):
    """The key does not open the ciphertext: another key, or altered bytes."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """The file before decryption."""

    salt: bytes
    token: bytes = field(repr=False)


class _Document(msgspec.Struct):
    version: int
    salt: str
    ciphertext: str


class _Versioned(msgspec.Struct):
    version: msgspec.Raw


def new_salt() -> bytes:
    return os.urandom(SALT_BYTES)


def derive_key(passphrase: SecretText, salt: bytes) -> bytearray:
    """The 32 bytes that Argon2id makes of the passphrase. Takes 64 MiB and some 200 ms of a thread."""
    return bytearray(
        hash_secret_raw(passphrase.reveal().encode(), salt, _TIME_COST, _MEMORY_KIB, _PARALLELISM, _KEY_BYTES, Type.ID)
    )


def decode_envelope(data: bytes) -> Envelope:
    """FormatError when the bytes are no such file, OtherVersionError when its version isn't 1."""
    try:
        version = bytes(msgspec.json.decode(data, type=_Versioned).version)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FormatError("it is not a JSON object with a version") from error
    if version != b"1":
        shown = version.decode("ascii", "replace") if version.isdigit() and len(version) < 10 else "unknown"
        raise OtherVersionError(shown)
    try:
        document = msgspec.json.decode(data, type=_Document)
        salt = base64.b64decode(document.salt, validate=True)
        token = document.ciphertext.encode("ascii")
        raw_token = base64.b64decode(token, altchars=b"-_", validate=True)
    except msgspec.DecodeError as error:
        raise FormatError("it lacks version, salt or ciphertext") from error
    except (binascii.Error, ValueError) as error:
        raise FormatError("its salt or ciphertext is not base64") from error
    if len(salt) != SALT_BYTES:
        raise FormatError(f"its salt has {len(salt)} bytes instead of {SALT_BYTES}")
    body = len(raw_token) - _FERNET_OVERHEAD
    if body <= 0 or body % 16 or raw_token[0] != _FERNET_VERSION:
        raise FormatError("its ciphertext is not a whole Fernet token")
    return Envelope(salt, token)


def decrypt(envelope: Envelope, key: bytearray) -> dict[str, SecretText]:
    """Username → secret. KeyMismatchError when the key doesn't fit, FormatError when it opens something else."""
    try:
        plain = _fernet(key).decrypt(envelope.token)
    except InvalidToken:
        raise KeyMismatchError("the key does not open the ciphertext") from None
    try:
        entries = msgspec.json.decode(plain, type=dict[str, str])
    except (msgspec.DecodeError, UnicodeDecodeError):
        # No cause: it could quote the plaintext.
        raise FormatError("what it holds is not an object of names and texts") from None
    return {username: SecretText(text) for username, text in entries.items()}


def encode(entries: Mapping[str, SecretText], key: bytearray, salt: bytes) -> bytes:
    """The whole file."""
    plain = msgspec.json.encode({username: text.reveal() for username, text in entries.items()})
    document = _Document(
        version=VERSION,
        salt=base64.b64encode(salt).decode("ascii"),
        ciphertext=_fernet(key).encrypt(plain).decode("ascii"),
    )
    return msgspec.json.encode(document)


def _fernet(key: bytearray) -> Fernet:
    return Fernet(base64.urlsafe_b64encode(key))
