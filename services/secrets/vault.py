"""The vault: looks secrets up, changes them, seals and unseals, and has each of it recorded before it answers.

Order of every change: made ready, recorded, done. A change that was recorded and then failed is followed by an event
that says so; a crash in between leaves the event without the change, and a caller without an answer, who repeats it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from libs.service_kit.errors import FieldViolation, InvalidRequestError, LabferryError
from libs.service_kit.settings import SecretsBackend
from services.secrets.access import may_read
from services.secrets.audit import SERVICE_ITSELF, Asker, Audit, FailedChange, PassphraseSource, ReadRefusal
from services.secrets.encrypted_file import EncryptedFile, FileChangedError, FileReplacedError
from services.secrets.errors import (
    AlreadyInitializedError,
    NotInitializedError,
    SealedError,
    SecretNotAllowedError,
    SecretNotFoundError,
    StoreUnusableError,
)
from services.secrets.names import KnownName, LogNames, merge_names
from services.secrets.os_keyring import OsKeyring
from services.secrets.passphrase_attempts import PassphraseAttempts
from services.secrets.sealing import Sealing
from services.secrets.secret_id import DEFAULT_SERVICE, SecretId
from services.secrets.secret_text import SecretText

_WRITE_ATTEMPTS = 5

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class VaultStatus:
    """`backend` is where new values go. `file` is None for the keyring."""

    backend: SecretsBackend
    sealed: bool
    initialized: bool
    file: Path | None
    format_version: int | None
    """Of the open file."""


class Vault:
    """Secrets in a keyring, with the encrypted file behind it; or in the file alone when `keyring` is None.

    `on_seal_change` is called on the loop with the new state whenever the vault is sealed or unsealed.
    """

    def __init__(
        self,
        file: EncryptedFile,
        keyring: OsKeyring | None,
        audit: Audit,
        names: LogNames,
        on_seal_change: Callable[[bool], None],
        attempts: PassphraseAttempts,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._file = file
        self._keyring = keyring
        self._audit = audit
        self._names = names
        self._on_seal_change = on_seal_change
        self._sealing = Sealing(file, audit, attempts, self._tell_seal_change, clock)
        self._changing = asyncio.Lock()
        self._changes: set[asyncio.Task[Any]] = set()

    @property
    def sealed(self) -> bool:
        """Whether no value can be read or written. A keyring isn't ours to seal."""
        return self._keyring is None and self._file.sealed

    @property
    def waits_for_passphrase(self) -> bool:
        """Whether the encrypted file matters here and is closed. Behind a keyring it matters only if it exists."""
        return self._file.sealed and self._file_counts()

    def file_exists(self) -> bool:
        return self._file.exists()

    def status(self) -> VaultStatus:
        if self._keyring is not None:
            return VaultStatus(
                SecretsBackend.OS_KEYRING, sealed=False, initialized=True, file=None, format_version=None
            )
        return VaultStatus(
            SecretsBackend.ENCRYPTED_FILE,
            sealed=self.sealed,
            initialized=self._file.exists(),
            file=self._file.path,
            format_version=self._file.version,
        )

    async def read(self, secret: SecretId, by: Asker) -> SecretText:
        """The value, for an identity that may have it. Value and refusal alike are recorded first.

        Errors: SecretNotAllowedError, SecretNotFoundError, SealedError, NotInitializedError, and those of an unusable
        store (damaged, unsafe modes, unknown version, no keyring).
        """
        if not may_read(by.roles, secret):
            await self._audit.read_refused(by, secret, ReadRefusal.NOT_ALLOWED)
            raise SecretNotAllowedError(secret, by.actor)
        try:
            value = await self._look_up(secret)
        except (SealedError, NotInitializedError):
            await self._audit.read_refused(by, secret, ReadRefusal.SEALED)
            raise
        except LabferryError:
            await self._audit.read_refused(by, secret, ReadRefusal.UNUSABLE)
            raise
        if value is None:
            await self._audit.read_refused(by, secret, ReadRefusal.NOT_FOUND)
            raise SecretNotFoundError(secret)
        await self._audit.read(by, secret)
        return value

    async def list_names(self, service: str, by: Asker) -> Sequence[KnownName]:
        """The names that the log and the file know, sorted. SealedError while the file can't be asked."""
        in_file: Sequence[str] = ()
        if self._file_counts():
            in_file = [secret.username for secret in await self._entries() if secret.service == service]
        from_log = await self._names.of_service(service)
        if self._keyring is None:
            # The file is all there is: what the log remembers and the file lacks was removed by another program.
            from_log = {username: at for username, at in from_log.items() if username in in_file}
        await self._audit.names_listed(by, service)
        return merge_names(service, from_log, in_file)

    async def set(self, secret: SecretId, value: SecretText, by: Asker) -> bool:
        """Stores or replaces. Returns whether there was one before. Errors: those of an unusable or sealed store."""
        return await self._to_the_end(self._set(secret, value, by))

    async def delete(self, secret: SecretId, reason: str, by: Asker) -> bool:
        """Removes it from keyring and file; silent if absent. Returns whether there was one."""
        return await self._to_the_end(self._delete(secret, reason, by))

    async def initialize(self, passphrase: SecretText, by: Asker) -> None:
        """Makes the encrypted file and leaves it open. AlreadyInitializedError when there is one."""
        if self._keyring is not None:
            raise AlreadyInitializedError(self._file.path, "the OS keyring is in use, and needs no encrypted file")
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
            return await change

    async def _look_up(self, secret: SecretId) -> SecretText | None:
        if self._keyring is not None:
            found = await self._keyring.get(secret)
            if found is not None:
                return found
        if not self._file_counts():
            return None
        return (await self._entries()).get(secret)

    def _file_counts(self) -> bool:
        """Behind a keyring, the file counts only if it exists; alone, its absence is an error to be told."""
        return self._keyring is None or self._file.exists()

    async def _entries(self) -> Mapping[SecretId, SecretText]:
        try:
            return await self._file.entries()
        except FileReplacedError:
            self._on_seal_change(self.sealed)
            await self._audit.store_sealed(SERVICE_ITSELF)
            raise

    async def _set(self, secret: SecretId, value: SecretText, by: Asker) -> bool:
        if self._keyring is not None:
            replaced = await self._keyring.get(secret) is not None
            await self._audit.secret_set(by, secret, replaced=replaced)
            async with self._failure_recorded(by, secret, FailedChange.SET):
                await self._keyring.set(secret, value)
            return replaced
        replaced = secret in await self._entries()
        if secret.service != DEFAULT_SERVICE and not await self._file.holds_every_service():
            raise InvalidRequestError(
                FieldViolation("service", f'version 1 of the encrypted file keeps service "{DEFAULT_SERVICE}" only')
            )
        await self._change_file(
            secret, value, by, FailedChange.SET, lambda: self._audit.secret_set(by, secret, replaced=replaced)
        )
        return replaced

    async def _delete(self, secret: SecretId, reason: str, by: Asker) -> bool:
        in_file = False
        if self._file_counts():
            in_file = secret in await self._entries()
        existed = in_file or (self._keyring is not None and await self._keyring.get(secret) is not None)

        async def record() -> None:
            await self._audit.secret_deleted(by, secret, existed=existed, reason=reason)

        if not in_file:
            await record()
        else:
            await self._change_file(secret, None, by, FailedChange.DELETE, record)
        if self._keyring is not None:
            async with self._failure_recorded(by, secret, FailedChange.DELETE):
                await self._keyring.delete(secret)
        return existed

    async def _change_file(
        self,
        secret: SecretId,
        value: SecretText | None,
        by: Asker,
        change: FailedChange,
        record: Callable[[], Awaitable[None]],
    ) -> None:
        staged = await self._file.stage({secret: value})
        try:
            await record()
            async with self._failure_recorded(by, secret, change):
                for _ in range(_WRITE_ATTEMPTS):
                    try:
                        await self._file.commit(staged)
                        return
                    except FileChangedError:
                        # The wizard wrote in between: our change goes onto what it left.
                        await self._file.discard(staged)
                        staged = await self._file.stage({secret: value})
                raise StoreUnusableError(self._file.path, "another program keeps rewriting it")
        finally:
            await self._file.discard(staged)

    @asynccontextmanager
    async def _failure_recorded(self, by: Asker, secret: SecretId, change: FailedChange) -> AsyncIterator[None]:
        try:
            yield
        except LabferryError as error:
            await self._audit.change_failed(by, secret, change, type(error).__name__)
            raise
