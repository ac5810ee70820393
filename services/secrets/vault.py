"""The vault: looks secrets up, changes them, seals and unseals, and has each of it recorded before it answers.

Order of every change: made ready, recorded, done. A change that was recorded and then failed is followed by an event
that says so; a crash in between leaves the event without the change, and a caller without an answer, who repeats it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from libs.service_kit.errors import LabferryError
from libs.service_kit.settings import SecretsBackend
from services.secrets.access import may_read
from services.secrets.audit import SERVICE_ITSELF, Asker, Audit, FailedChange, PassphraseSource, ReadRefusal
from services.secrets.encrypted_file import EncryptedFile
from services.secrets.errors import (
    AlreadyInitializedError,
    NotInitializedError,
    SealedError,
    SecretNotAllowedError,
    SecretNotFoundError,
)
from services.secrets.file_store import FileStore
from services.secrets.names import LogHistories
from services.secrets.passphrase_attempts import PassphraseAttempts
from services.secrets.sealing import Sealing
from services.secrets.secret_id import SecretId
from services.secrets.secret_text import SecretText
from services.secrets.store import FirstStore, SecretStore

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class VaultStatus:
    """`backend` is where new values go, `place` its path or address. `problem`: why it can't be used although it isn't
    sealed; empty: it can."""

    backend: SecretsBackend
    sealed: bool
    initialized: bool
    place: str
    format_version: int | None
    """Of the open file."""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class NamesKept:
    """`are_all`: what isn't among them isn't kept."""

    usernames: frozenset[str]
    are_all: bool


@dataclass(frozen=True, slots=True)
class SetOutcome:
    """`replaced`: there was one before. `version`: the number that the log gives to what was set."""

    replaced: bool
    version: int


class Vault:
    """Secrets in `first`, with the encrypted file behind it or not; or in the file alone when `first` is None.

    `on_seal_change` is called on the loop with the new state whenever the vault is sealed or unsealed, `on_change`
    after each change that was tried.
    """

    def __init__(
        self,
        file: EncryptedFile,
        first: FirstStore | None,
        audit: Audit,
        histories: LogHistories,
        on_seal_change: Callable[[bool], None],
        on_change: Callable[[], None],
        attempts: PassphraseAttempts,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._file = file
        self._in_file = FileStore(file, self._file_replaced)
        self._first = first
        self._audit = audit
        self._histories = histories
        self._on_seal_change = on_seal_change
        self._on_change = on_change
        self._sealing = Sealing(file, audit, attempts, self._tell_seal_change, clock)
        self._changing = asyncio.Lock()
        self._changes: set[asyncio.Task[Any]] = set()

    @property
    def sealed(self) -> bool:
        """Whether no value can be read or written. A keyring isn't ours to seal."""
        return self._first is None and self._file.sealed

    @property
    def waits_for_passphrase(self) -> bool:
        """Whether the encrypted file matters here and is closed. Behind a keyring it matters only if it exists."""
        return self._file.sealed and self._file_counts()

    def file_exists(self) -> bool:
        return self._file.exists()

    async def status(self) -> VaultStatus:
        first = self._first
        if first is not None:
            problem = await first.problem()
            return VaultStatus(first.backend, False, True, first.address, format_version=None, problem=problem)
        return VaultStatus(
            SecretsBackend.ENCRYPTED_FILE,
            sealed=self.sealed,
            initialized=self._file.exists(),
            place=str(self._file.path),
            format_version=self._file.version,
        )

    async def read(self, secret: SecretId, by: Asker, lease_id: str = "") -> SecretText:
        """The value, for an identity that may have it. Value and refusal alike are recorded first.

        Errors: SecretNotAllowedError, SecretNotFoundError, SealedError, NotInitializedError, and those of an unusable
        store (damaged, unsafe modes, unknown version, no keyring).
        """
        value = await self._readable(secret, by, lease_id)
        await self._audit.read(by, secret, lease_id)
        return value

    async def require_readable(self, secret: SecretId, by: Asker) -> None:
        """Whether `read` would give a value now; refusals are recorded. Errors as `read`."""
        await self._readable(secret, by, "")

    async def _readable(self, secret: SecretId, by: Asker, lease_id: str) -> SecretText:
        if not may_read(by.roles, secret):
            await self._audit.read_refused(by, secret, ReadRefusal.NOT_ALLOWED, lease_id)
            raise SecretNotAllowedError(secret, by.actor)
        try:
            value = await self._look_up(secret)
        except (SealedError, NotInitializedError):
            await self._audit.read_refused(by, secret, ReadRefusal.SEALED, lease_id)
            raise
        except LabferryError:
            await self._audit.read_refused(by, secret, ReadRefusal.UNUSABLE, lease_id)
            raise
        if value is None:
            await self._audit.read_refused(by, secret, ReadRefusal.NOT_FOUND, lease_id)
            raise SecretNotFoundError(secret)
        return value

    async def names_kept(self, service: str) -> NamesKept:
        """The names that the places which can be listed hold. SealedError while the file can't be asked."""
        listed = [await place.usernames(service) for place in self._places()]
        told = [usernames for usernames in listed if usernames is not None]
        return NamesKept(frozenset().union(*told), are_all=len(told) == len(listed))

    async def set(self, secret: SecretId, value: SecretText, rotate_by: Timestamp | None, by: Asker) -> SetOutcome:
        """Stores or replaces. Errors: those of an unusable or sealed store."""
        return await self._to_the_end(self._set(secret, value, rotate_by, by))

    async def set_rotate_by(self, secret: SecretId, rotate_by: Timestamp | None, by: Asker) -> None:
        """Says by when what is kept is to be replaced. SecretNotFoundError, and errors as `set`."""
        await self._to_the_end(self._set_rotate_by(secret, rotate_by, by))

    async def delete(self, secret: SecretId, reason: str, by: Asker) -> bool:
        """Removes it from keyring and file; silent if absent. Returns whether there was one."""
        return await self._to_the_end(self._delete(secret, reason, by))

    async def initialize(self, passphrase: SecretText, by: Asker) -> None:
        """Makes the encrypted file and leaves it open. AlreadyInitializedError when there is one."""
        if self._first is not None:
            in_use = f"{self._first.backend} is in use, and needs no encrypted file"
            raise AlreadyInitializedError(self._file.path, in_use)
        await self._to_the_end(self._sealing.initialize(passphrase, by))

    async def unseal(self, passphrase: SecretText, source: PassphraseSource, by: Asker) -> None:
        """Opens the encrypted file. An open one stays open, and the passphrase is checked all the same.

        Errors: WrongPassphraseError (recorded), NotInitializedError, and those of an unusable file.
        """
        await self._to_the_end(self._sealing.unseal(passphrase, source, by))

    async def change_passphrase(self, old: SecretText, new: SecretText, by: Asker) -> None:
        """Encrypts the file anew, whole or not at all. Errors as `unseal`."""
        await self._to_the_end(self._sealing.change_passphrase(old, new, by))

    async def upgrade(self, passphrase: SecretText, by: Asker) -> None:
        """Writes the file in the newest version, whole or not at all. Errors as `unseal`."""
        await self._to_the_end(self._sealing.upgrade(passphrase, by))

    async def seal(self, by: Asker) -> None:
        """Forgets key and values. Nothing happens when it is sealed."""
        await self._to_the_end(self._sealing.seal(by))

    def _tell_seal_change(self) -> None:
        self._on_seal_change(self.sealed)

    async def close(self) -> None:
        """Waits for the changes in work, then forgets key and values."""
        if self._changes:
            await asyncio.wait(self._changes)
        self._file.seal()

    async def _to_the_end(self, change: Coroutine[Any, Any, T]) -> T:
        """Runs a change to its end even if its caller goes away: between its event and its effect it must not stop."""
        task = asyncio.create_task(self._one_by_one(change))
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        return await asyncio.shield(task)

    async def _one_by_one(self, change: Coroutine[Any, Any, T]) -> T:
        async with self._changing:
            try:
                return await change
            finally:
                self._on_change()

    def _places(self) -> Sequence[SecretStore]:
        """Where values lie, in the order in which they are asked; the first one takes new values."""
        if self._first is None:
            return (self._in_file,)
        if self._first.before_file and self._file.exists():
            return (self._first, self._in_file)
        return (self._first,)

    def _file_counts(self) -> bool:
        """Behind a keyring, the file counts only if it exists; alone, its absence is an error to be told."""
        return self._in_file in self._places()

    async def _look_up(self, secret: SecretId) -> SecretText | None:
        places = self._places()
        if len(places) > 1:
            last = (await self._histories.now()).of(secret).present_version
            if last is not None and last.backend == SecretsBackend.ENCRYPTED_FILE:
                # It was put there while there was no keyring: what the keyring has of that name is older.
                places = places[::-1]
        for place in places:
            found = await place.get(secret)
            if found is not None:
                return found
        return None

    async def _file_replaced(self) -> None:
        self._on_seal_change(self.sealed)
        await self._audit.store_sealed(SERVICE_ITSELF)

    async def _set_rotate_by(self, secret: SecretId, rotate_by: Timestamp | None, by: Asker) -> None:
        if await self._look_up(secret) is None:
            raise SecretNotFoundError(secret)
        await self._audit.rotate_by_set(by, secret, rotate_by)

    async def _set(self, secret: SecretId, value: SecretText, rotate_by: Timestamp | None, by: Asker) -> SetOutcome:
        async with self._places()[0].changing(secret, value) as change:
            await self._audit.secret_set(
                by,
                secret,
                replaced=change.existed,
                rotate_by=rotate_by,
                backend=SecretsBackend.ENCRYPTED_FILE if self._first is None else self._first.backend,
                store_version=change.store_version,
            )
            async with self._failure_recorded(by, secret, FailedChange.SET):
                await change.commit()
        version = (await self._histories.now()).of(secret).present_version
        return SetOutcome(change.existed, version.number if version is not None else 0)

    async def _delete(self, secret: SecretId, reason: str, by: Asker) -> bool:
        async with AsyncExitStack() as prepared:
            # From the last to the first: what is gone from one place must not come to light from the next.
            changes = [
                await prepared.enter_async_context(place.changing(secret, None)) for place in reversed(self._places())
            ]
            existed = any(change.existed for change in changes)
            await self._audit.secret_deleted(by, secret, existed=existed, reason=reason)
            async with self._failure_recorded(by, secret, FailedChange.DELETE):
                for change in changes:
                    await change.commit()
        return existed

    @asynccontextmanager
    async def _failure_recorded(self, by: Asker, secret: SecretId, change: FailedChange) -> AsyncIterator[None]:
        try:
            yield
        except LabferryError as error:
            await self._audit.change_failed(by, secret, change, type(error).__name__)
            raise
