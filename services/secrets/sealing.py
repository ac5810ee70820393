"""Opening and closing the encrypted file: with its passphrase, under another one, and in its newest version."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime

from libs.service_kit.settings import SecretsBackend
from services.secrets.audit import Asker, Audit, PassphraseSource
from services.secrets.encrypted_file import EncryptedFile, FileChangedError, OpenFile, StagedWrite
from services.secrets.errors import StoreUnusableError, TooManyAttemptsError, WrongPassphraseError
from services.secrets.file_header import LAST_VERSION
from services.secrets.passphrase_attempts import PassphraseAttempts
from services.secrets.secret_text import SecretText


class Sealing:
    """The commands, one at a time by their caller's care. Each is recorded before it happens; `changed` is called when
    the file was opened or closed."""

    def __init__(
        self,
        file: EncryptedFile,
        audit: Audit,
        attempts: PassphraseAttempts,
        changed: Callable[[], None],
        clock: Callable[[], datetime],
    ) -> None:
        self._file = file
        self._audit = audit
        self._attempts = attempts
        self._changed = changed
        self._clock = clock

    async def initialize(self, passphrase: SecretText, by: Asker) -> None:
        """Makes the encrypted file and leaves it open. AlreadyInitializedError when there is one."""
        staged = await self._file.stage_first(passphrase)
        try:
            await self._audit.store_initialized(by, SecretsBackend.ENCRYPTED_FILE)
            await self._file.commit(staged)
        finally:
            await self._file.discard(staged)
        self._changed()

    async def unseal(self, passphrase: SecretText, source: PassphraseSource, by: Asker) -> None:
        """Opens the file; an open one stays open, and the passphrase is checked all the same.

        WrongPassphraseError (recorded), TooManyAttemptsError, NotInitializedError, and those of an unusable file."""
        opened = await self._opened(passphrase, source, by)
        if self._file.sealed:
            await self._audit.store_unsealed(by, source)
        self._file.become(opened)
        self._changed()

    async def _opened(self, passphrase: SecretText, source: PassphraseSource, by: Asker) -> OpenFile:
        """Errors as `unseal`; TooManyAttemptsError too soon after wrong ones."""
        wait = self._attempts.wait(self._clock())
        if wait:
            raise TooManyAttemptsError(wait)
        try:
            opened = await self._file.try_passphrase(passphrase)
        except WrongPassphraseError:
            await self._audit.unseal_refused(by, source)
            self._attempts.wrong(self._clock())
            raise
        self._attempts.right()
        return opened

    async def change_passphrase(self, old: SecretText, new: SecretText, by: Asker) -> None:
        """Encrypts the file anew under another passphrase, whole or not at all. Errors as `unseal`."""
        opened = await self._opened(old, PassphraseSource.CHANGE, by)
        staged = await self._file.stage_anew(opened, new, opened.header.version)
        await self._rewrite(staged, self._audit.passphrase_changed(by))

    async def upgrade(self, passphrase: SecretText, by: Asker) -> None:
        """Writes the file in the newest version, whole or not at all. Errors as `unseal`."""
        opened = await self._opened(passphrase, PassphraseSource.UPGRADE, by)
        version = opened.header.version
        if version == LAST_VERSION:
            return
        staged = await self._file.stage_anew(opened, passphrase, LAST_VERSION)
        await self._rewrite(staged, self._audit.store_upgraded(by, version, LAST_VERSION))

    async def _rewrite(self, staged: StagedWrite, record: Awaitable[None]) -> None:
        """Puts a whole new file in the place of the other. It is as sealed afterwards as it was."""
        was_sealed = self._file.sealed
        try:
            await record
            await self._file.commit(staged)
        except FileChangedError as error:
            raise StoreUnusableError(self._file.path, "another program rewrote it meanwhile; try again") from error
        finally:
            await self._file.discard(staged)
            if was_sealed:
                self._file.seal()

    async def seal(self, by: Asker) -> None:
        """Forgets key and values. Nothing happens when it is sealed."""
        if self._file.sealed:
            return
        await self._audit.store_sealed(by)
        self._file.seal()
        self._changed()
