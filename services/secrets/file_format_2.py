"""Version 2 of the encrypted file: any service, the key's parameters in the file, and a header that is authenticated
with the content. Pure but for the nonce."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Mapping
from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.secrets.file_errors import FormatError, KeyMismatchError
from services.secrets.file_header import SALT_BYTES, Header
from services.secrets.secret_id import SecretId
from services.secrets.secret_text import SecretText

_NONCE_BYTES, _TAG_BYTES = 12, 16


class _Kdf(msgspec.Struct, forbid_unknown_fields=True):
    """The limits keep a forged file from asking for all of the memory."""

    name: str
    salt: str
    time_cost: Annotated[int, msgspec.Meta(ge=1, le=16)]
    memory_kib: Annotated[int, msgspec.Meta(ge=8_192, le=1_048_576)]
    parallelism: Annotated[int, msgspec.Meta(ge=1, le=16)]


class _Head(msgspec.Struct):
    """What is authenticated with the ciphertext, as compact JSON with its fields in this order."""

    version: int
    cipher: str
    kdf: _Kdf


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    cipher: str
    kdf: _Kdf
    head_sha256: str
    nonce: str
    ciphertext: str


class _Entry(msgspec.Struct):
    service: str
    username: str
    value: str


def decode(data: bytes) -> tuple[Header, bytes]:
    """The header, and nonce and ciphertext in one. FormatError when the bytes are no whole file of version 2."""
    try:
        document = msgspec.json.decode(data, type=_Document)
        salt, nonce, ciphertext = (
            base64.b64decode(text, validate=True) for text in (document.kdf.salt, document.nonce, document.ciphertext)
        )
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FormatError("its fields are not those of version 2") from error
    except (binascii.Error, ValueError) as error:
        raise FormatError("its salt, nonce or ciphertext is not base64") from error
    kdf = document.kdf
    header = Header(document.version, salt, kdf.time_cost, kdf.memory_kib, kdf.parallelism)
    head = _head(header)
    if (document.cipher, kdf.name) != (head.cipher, head.kdf.name):
        raise FormatError("its cipher or key derivation is not known")
    if len(salt) != SALT_BYTES or len(nonce) != _NONCE_BYTES or len(ciphertext) < _TAG_BYTES:
        raise FormatError("its salt, nonce or ciphertext is too short or too long")
    if document.head_sha256 != hashlib.sha256(msgspec.json.encode(head)).hexdigest():
        # Another salt or cost makes another key: without this, damage here would look like a wrong passphrase.
        raise FormatError("the parameters of its key were altered")
    return header, nonce + ciphertext


def decrypt(header: Header, sealed: bytes, key: bytearray) -> dict[SecretId, SecretText]:
    """KeyMismatchError when key or header don't fit, FormatError when they open something else."""
    try:
        plain = AESGCM(bytes(key)).decrypt(
            sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], msgspec.json.encode(_head(header))
        )
    except InvalidTag:
        raise KeyMismatchError("the key does not open the ciphertext") from None
    try:
        entries = msgspec.json.decode(plain, type=list[_Entry])
    except (msgspec.DecodeError, UnicodeDecodeError):
        # No cause: it could quote the plaintext.
        raise FormatError("what it holds is not a list of names and texts") from None
    return {SecretId(entry.service, entry.username): SecretText(entry.value) for entry in entries}


def encode(entries: Mapping[SecretId, SecretText], key: bytearray, header: Header) -> bytes:
    """The whole file, under a nonce of its own."""
    rows = [_Entry(secret.service, secret.username, text.reveal()) for secret, text in entries.items()]
    head, nonce = _head(header), os.urandom(_NONCE_BYTES)
    authenticated = msgspec.json.encode(head)
    document = _Document(
        head.version,
        head.cipher,
        head.kdf,
        hashlib.sha256(authenticated).hexdigest(),
        _base64(nonce),
        _base64(AESGCM(bytes(key)).encrypt(nonce, msgspec.json.encode(rows), authenticated)),
    )
    return msgspec.json.encode(document)


def _head(header: Header) -> _Head:
    kdf = _Kdf("argon2id", _base64(header.salt), header.time_cost, header.memory_kib, header.parallelism)
    return _Head(header.version, "AES-256-GCM", kdf)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
