"""The encrypted file: version 1 (FORMATS §8), as ExLab-Wizard has it, and which version a file has. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
from argon2.low_level import Type, hash_secret_raw
from cryptography.fernet import Fernet, InvalidToken

from services.secrets import file_format_2
from services.secrets.file_errors import FormatError, KeyMismatchError, OtherVersionError
from services.secrets.file_header import SALT_BYTES, Header
from services.secrets.secret_id import DEFAULT_SERVICE, SecretId
from services.secrets.secret_text import SecretText

_KEY_BYTES = 32
_FERNET_OVERHEAD = 1 + 8 + 16 + 32
_FERNET_VERSION = 0x80


@dataclass(frozen=True, slots=True)
class Envelope:
    """The file before decryption."""

    header: Header
    token: bytes = field(repr=False)
    """The Fernet token of version 1; nonce and ciphertext of version 2."""


class _Document(msgspec.Struct):
    version: int
    salt: str
    ciphertext: str


class _Versioned(msgspec.Struct):
    version: msgspec.Raw


def derive_key(passphrase: SecretText, header: Header) -> bytearray:
    """The 32 bytes that Argon2id makes of the passphrase. Takes 64 MiB and some 200 ms of a thread, unless the file
    asks for other parameters."""
    cost = (header.time_cost, header.memory_kib, header.parallelism)
    return bytearray(hash_secret_raw(passphrase.reveal().encode(), header.salt, *cost, _KEY_BYTES, Type.ID))


def decode_envelope(data: bytes) -> Envelope:
    """FormatError when the bytes are no such file, OtherVersionError when its version isn't 1 or 2."""
    try:
        version = bytes(msgspec.json.decode(data, type=_Versioned).version)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FormatError("it is not a JSON object with a version") from error
    if version == b"2":
        return Envelope(*file_format_2.decode(data))
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
    return Envelope(Header(1, salt), token)


def decrypt(envelope: Envelope, key: bytearray) -> dict[SecretId, SecretText]:
    """KeyMismatchError when the key doesn't fit, FormatError when it opens something else."""
    if envelope.header.version == 2:
        return file_format_2.decrypt(envelope.header, envelope.token, key)
    try:
        plain = _fernet(key).decrypt(envelope.token)
    except InvalidToken:
        raise KeyMismatchError("the key does not open the ciphertext") from None
    try:
        entries = msgspec.json.decode(plain, type=dict[str, str])
    except (msgspec.DecodeError, UnicodeDecodeError):
        # No cause: it could quote the plaintext.
        raise FormatError("what it holds is not an object of names and texts") from None
    return {SecretId(DEFAULT_SERVICE, username): SecretText(text) for username, text in entries.items()}


def encode(entries: Mapping[SecretId, SecretText], key: bytearray, header: Header) -> bytes:
    """The whole file, in the header's version. ValueError for another service in version 1."""
    if header.version == 2:
        return file_format_2.encode(entries, key, header)
    if any(secret.service != DEFAULT_SERVICE for secret in entries):
        raise ValueError("version 1 has no place for other services")
    plain = msgspec.json.encode({secret.username: text.reveal() for secret, text in entries.items()})
    document = _Document(
        version=1,
        salt=base64.b64encode(header.salt).decode("ascii"),
        ciphertext=_fernet(key).encrypt(plain).decode("ascii"),
    )
    return msgspec.json.encode(document)


def _fernet(key: bytearray) -> Fernet:
    return Fernet(base64.urlsafe_b64encode(key))
