"""The encrypted file while the service runs: sealed, or open with its key and entries in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from libs.service_kit.loop_turn import LookedThisTurn
from services.secrets import file_format, private_file
from services.secrets.errors import (
    AlreadyInitializedError,
    NotInitializedError,
    SealedError,
    StoreDamagedError,
    StoreDowngradedError,
    StoreUnusableError,
    UnknownVersionError,
    WrongPassphraseError,
)
from services.secrets.file_errors import FormatError, KeyMismatchError, OtherVersionError
from services.secrets.file_header import FIRST_VERSION, Header, new_header
from services.secrets.key_check import KeyCheck
from services.secrets.private_file import Signature
from services.secrets.secret_id import SecretId
from services.secrets.secret_text import SecretText


class FileChangedError(Exception):
    """Another program replaced the file since it was read; nothing was written."""


class FileReplacedError(SealedError):
    """Another program put a file with another key in its place. Raised once: from here on it is sealed."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} was replaced by a file with another key; unseal it again")


@dataclass(frozen=True, slots=True)
class OpenFile:
    """What is in memory while the file is unsealed. `signature` is the file's when it was read."""

    header: Header
    signature: Signature
    key: bytearray = field(repr=False)
    entries: Mapping[SecretId, SecretText] = field(repr=False)


@dataclass(frozen=True, slots=True)
class StagedWrite:
    """The next content, whole and durable in a temporary file, waiting for its place."""

    temporary: Path
    base: Signature | None
    header: Header
    key: bytearray = field(repr=False)
    entries: Mapping[SecretId, SecretText] = field(repr=False)


class EncryptedFile:
    """One file of version 1 (FORMATS §8) or 2. Its owner serialises the calls that change it.

    Changing it takes two steps, so that the event can be written in between: `stage` makes the content durable beside
    the file, `commit` gives it its place. What another program writes is noticed at the next call.
    """

    def __init__(self, path: Path, key_check: KeyCheck) -> None:
        self.path = path
        self._key_check = key_check
        self._open: OpenFile | None = None
        self._looked = LookedThisTurn()

    @property
    def sealed(self) -> bool:
        return self._open is None

    @property
    def version(self) -> int | None:
        """Version of the open file; None while it is sealed."""
        return None if self._open is None else self._open.header.version

    def exists(self) -> bool:
        """One lstat of a local file: quick enough for the event loop."""
        try:
            return private_file.signature_of(self.path) is not None
        except OSError as error:
            raise self._unusable(error) from error

    async def holds_every_service(self) -> bool:
        """Whether it has a place for other services than the default one. Errors as `entries`."""
        return (await self._current()).header.holds_every_service

    async def entries(self) -> Mapping[SecretId, SecretText]:
        """What it holds, from memory unless the file changed.

        Errors: NotInitializedError, SealedError, FileReplacedError, StoreDamagedError, UnsafeModeError,
        UnknownVersionError, StoreUnusableError.
        """
        return (await self._current()).entries

    async def _current(self) -> OpenFile:
        if self._open is not None and self._looked:
            return self._open
        try:
            signature = private_file.signature_of(self.path)
        except OSError as error:
            raise self._unusable(error) from error
        if signature is None:
            raise NotInitializedError(self.path)
        opened = self._open
        if opened is None:
            raise SealedError()
        if signature == opened.signature:
            self._looked.note()
            return opened
        # A copy: sealing erases the one in memory, perhaps while the thread decrypts.
        found = await asyncio.to_thread(self._reread, opened.header, bytearray(opened.key))
        if self._open is not opened:
            # Somebody else sealed or reread it meanwhile: their state counts.
            return await self._current()
        if found is None:
            self.seal()
            raise FileReplacedError(self.path)
        self.become(found)
        return found

    async def try_passphrase(self, passphrase: SecretText) -> OpenFile:
        """Opens the file without changing what is in memory; `become` does that.

        Errors: WrongPassphraseError, and those of `entries` but SealedError.
        """
        return await asyncio.to_thread(self._try_passphrase, passphrase)

    def become(self, opened: OpenFile) -> None:
        """Unseals with what `try_passphrase` opened."""
        self.seal()
        self._open = opened

    def seal(self) -> None:
        """Forgets key and entries, as far as Python lets one forget."""
        if self._open is not None:
            self._open.key[:] = bytes(len(self._open.key))
            self._open = None

    async def stage_first(self, passphrase: SecretText) -> StagedWrite:
        """A file without entries, under a fresh salt. AlreadyInitializedError when there is one."""
        return await asyncio.to_thread(self._stage_first, passphrase)

    async def stage(self, change: Mapping[SecretId, SecretText | None]) -> StagedWrite:
        """The present entries with `change` applied; None removes a name. Errors as `entries`."""
        opened = await self._current()
        entries = {**opened.entries, **{n: v for n, v in change.items() if v is not None}}
        for name in [n for n, v in change.items() if v is None]:
            entries.pop(name, None)
        return await asyncio.to_thread(self._stage, entries, bytearray(opened.key), opened.header, opened.signature)

    async def stage_anew(self, opened: OpenFile, passphrase: SecretText, version: int) -> StagedWrite:
        """What was opened, in this version, under a key of its own that the passphrase makes with a fresh salt."""
        return await asyncio.to_thread(self._stage_anew, opened, passphrase, version)

    async def commit(self, staged: StagedWrite) -> None:
        """FileChangedError when another program wrote since; AlreadyInitializedError when a first file has company."""
        self.become(await asyncio.to_thread(self._commit, staged))

    async def discard(self, staged: StagedWrite) -> None:
        await asyncio.to_thread(staged.temporary.unlink, missing_ok=True)

    # What follows blocks and runs in threads. It touches nothing of `self` that changes.

    def _reread(self, header: Header, key: bytearray) -> OpenFile | None:
        """The file as it is now; None when it needs another key."""
        envelope, signature = self._read()
        if envelope.header != header:
            return None
        try:
            entries = self._decrypt(envelope, key)
        except KeyMismatchError:
            raise StoreDamagedError(
                self.path, "the key that opened it before does not (altered, or encrypted anew by another program)"
            ) from None
        return OpenFile(header, signature, key, entries)

    def _try_passphrase(self, passphrase: SecretText) -> OpenFile:
        envelope, signature = self._read()
        header = envelope.header
        key = file_format.derive_key(passphrase, header)
        try:
            entries = self._decrypt(envelope, key)
            if header.version < self._key_check.version():
                raise StoreDowngradedError(self.path, header.version)
            self._key_check.remember(key, header)
        except KeyMismatchError:
            if self._key_check.recognises(key, header.salt):
                raise StoreDamagedError(self.path, "the right passphrase does not open its ciphertext") from None
            raise WrongPassphraseError() from None
        except OSError as error:
            raise self._unusable(error) from error
        return OpenFile(header, signature, key, entries)

    def _read(self) -> tuple[file_format.Envelope, Signature]:
        try:
            private_file.check_folder(self.path.parent)
            content = private_file.read_private(self.path)
        except FileNotFoundError:
            raise NotInitializedError(self.path) from None
        except OSError as error:
            raise self._unusable(error) from error
        try:
            return file_format.decode_envelope(content.data), content.signature
        except OtherVersionError as error:
            raise UnknownVersionError(self.path, error.version) from error
        except FormatError as error:
            raise StoreDamagedError(self.path, str(error)) from error

    def _decrypt(self, envelope: file_format.Envelope, key: bytearray) -> dict[SecretId, SecretText]:
        try:
            return file_format.decrypt(envelope, key)
        except FormatError as error:
            raise StoreDamagedError(self.path, str(error)) from None

    def _stage_first(self, passphrase: SecretText) -> StagedWrite:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if private_file.signature_of(self.path) is not None:
                raise AlreadyInitializedError(self.path)
        except OSError as error:
            raise self._unusable(error) from error
        header = new_header(FIRST_VERSION)
        return self._stage({}, file_format.derive_key(passphrase, header), header, None)

    def _stage(
        self, entries: Mapping[SecretId, SecretText], key: bytearray, header: Header, base: Signature | None
    ) -> StagedWrite:
        try:
            private_file.check_folder(self.path.parent)
            temporary = private_file.write_beside(self.path, file_format.encode(entries, key, header))
        except OSError as error:
            raise self._unusable(error) from error
        return StagedWrite(temporary, base, header, key, entries)

    def _stage_anew(self, opened: OpenFile, passphrase: SecretText, version: int) -> StagedWrite:
        header = new_header(version)
        return self._stage(opened.entries, file_format.derive_key(passphrase, header), header, opened.signature)

    def _commit(self, staged: StagedWrite) -> OpenFile:
        try:
            written = staged.temporary.lstat()
            if staged.base is None:
                private_file.place_new(staged.temporary, self.path)
            else:
                if private_file.signature_of(self.path) != staged.base:
                    raise FileChangedError(f"{self.path} changed while it was being rewritten")
                private_file.replace_with(staged.temporary, self.path)
            self._key_check.remember(staged.key, staged.header)
            signature = private_file.signature_of(self.path)
        except FileExistsError:
            raise AlreadyInitializedError(self.path) from None
        except OSError as error:
            raise self._unusable(error) from error
        if signature is None or signature.inode != written.st_ino:
            # Somebody replaced it right after us: a signature that fits nothing makes the next call read theirs.
            signature = Signature.of(written)
        return OpenFile(staged.header, signature, staged.key, staged.entries)

    def _unusable(self, error: OSError) -> StoreUnusableError:
        return StoreUnusableError(self.path, error.strerror or type(error).__name__)
