"""The encrypted file as a place that keeps values."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from libs.service_kit.errors import FieldViolation, InvalidRequestError
from services.secrets.encrypted_file import EncryptedFile, FileChangedError, FileReplacedError, StagedWrite
from services.secrets.errors import StoreUnusableError
from services.secrets.secret_id import DEFAULT_SERVICE, SecretId
from services.secrets.secret_text import SecretText

_WRITE_ATTEMPTS = 5


class FileStore:
    """Implements `SecretStore`. `on_replaced` is awaited when another program's file turned out to be sealed."""

    def __init__(self, file: EncryptedFile, on_replaced: Callable[[], Awaitable[None]]) -> None:
        self._file = file
        self._on_replaced = on_replaced

    async def get(self, secret: SecretId) -> SecretText | None:
        """As `SecretStore.get`. SealedError, NotInitializedError, and errors of an unusable file."""
        return (await self._entries()).get(secret)

    async def usernames(self, service: str) -> frozenset[str]:
        """As `SecretStore.usernames`. Errors as `get`."""
        return frozenset(secret.username for secret in await self._entries() if secret.service == service)

    @asynccontextmanager
    async def changing(self, secret: SecretId, value: SecretText | None) -> AsyncIterator[FileChange]:
        """As `SecretStore.changing`. Errors as `get`; InvalidRequestError for a service that it has no place for."""
        existed = secret in await self._entries()
        if value is not None and secret.service != DEFAULT_SERVICE and not await self._file.holds_every_service():
            raise InvalidRequestError(
                FieldViolation("service", f'version 1 of the encrypted file keeps service "{DEFAULT_SERVICE}" only')
            )
        needed = existed or value is not None
        change = FileChange(
            self._file, {secret: value}, existed, await self._file.stage({secret: value}) if needed else None
        )
        try:
            yield change
        finally:
            await change.discard()

    async def _entries(self) -> Mapping[SecretId, SecretText]:
        try:
            return await self._file.entries()
        except FileReplacedError:
            await self._on_replaced()
            raise


@dataclass(slots=True)
class FileChange:
    """Implements `PreparedChange`. `staged` is durable beside the file; None: there is nothing to remove."""

    file: EncryptedFile
    change: Mapping[SecretId, SecretText | None]
    existed: bool
    staged: StagedWrite | None

    @property
    def store_version(self) -> int:
        """As `PreparedChange.store_version`: the file doesn't count."""
        return 0

    async def commit(self) -> None:
        """As `PreparedChange.commit`. StoreUnusableError when another program keeps rewriting the file."""
        if self.staged is None:
            return
        for _ in range(_WRITE_ATTEMPTS):
            try:
                await self.file.commit(self.staged)
                return
            except FileChangedError:
                # The wizard wrote in between: our change goes onto what it left.
                await self.discard()
                self.staged = await self.file.stage(self.change)
        raise StoreUnusableError(self.file.path, "another program keeps rewriting it")

    async def discard(self) -> None:
        """Removes what was staged, unless it has its place already."""
        if self.staged is not None:
            await self.file.discard(self.staged)
