"""The key that signs a service's checkpoints: made at its first start, private to it. Blocking calls."""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from libs.event_log.store import LogLocationError

PRIVATE_KEY_FILE = "checkpoint.key"
_OTHERS = 0o077
_MOST_BYTES = 16 << 10


class CheckpointKeyError(LogLocationError):
    """The key can't be used, or isn't the service's alone; the message says what to do."""


@dataclass(frozen=True, slots=True)
class CheckpointKey:
    """`trusted`: the raw public keys whose checkpoints this service believes, its own among them."""

    private: Ed25519PrivateKey = field(repr=False)
    trusted: frozenset[bytes]

    @property
    def public(self) -> bytes:
        return self.private.public_key().public_bytes_raw()


def load_checkpoint_key(folder: Path) -> CheckpointKey:
    """The key in `folder`, made when there is none, with its public half beside it as `checkpoint-….pub`.

    Every other `.pub` file there is trusted too: the key before a lost one, or another replica's. CheckpointKeyError.
    """
    path = folder / PRIVATE_KEY_FILE
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.path.lexists(path):
            _make(path)
        private = _read_private(path)
        public = private.public_key()
        public_path = folder / f"checkpoint-{hashlib.sha256(public.public_bytes_raw()).hexdigest()[:16]}.pub"
        if not public_path.exists():
            pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
            _write_new(public_path, pem, 0o644)
        others = frozenset(_read_public(p) for p in sorted(folder.glob("*.pub")))
    except OSError as error:
        raise CheckpointKeyError(f"the checkpoints' key {path} can't be had: {error.strerror}") from error
    return CheckpointKey(private, others | {public.public_bytes_raw()})


def _make(path: Path) -> None:
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write_new(path, pem, 0o600)


def _write_new(path: Path, content: bytes, mode: int) -> None:
    """Whole or not at all, and never in the place of another: whoever came first stays."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        with suppress(FileExistsError):
            os.link(temporary, path, follow_symlinks=False)
    finally:
        temporary.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read_private(path: Path) -> Ed25519PrivateKey:
    # O_NONBLOCK: a FIFO in its place must not hang the start.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in (os.geteuid(), 0):
            raise CheckpointKeyError(f"{path} is not a regular file of this user")
        if status.st_mode & _OTHERS:
            mode = stat.S_IMODE(status.st_mode)
            raise CheckpointKeyError(f"{path} is open to others (mode {mode:04o}; 0600 is needed)")
        content = file.read(_MOST_BYTES)
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CheckpointKeyError(f"{path} holds no private key: put it back, or move it away for a new one") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise CheckpointKeyError(f"{path} holds no Ed25519 key")
    return key


def _read_public(path: Path) -> bytes:
    try:
        key = serialization.load_pem_public_key(path.read_bytes()[:_MOST_BYTES])
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CheckpointKeyError(f"{path} holds no public key") from error
    if not isinstance(key, Ed25519PublicKey):
        raise CheckpointKeyError(f"{path} holds no Ed25519 key")
    return key.public_bytes_raw()
