"""What every place that keeps values offers, so that the vault needs to know none of them."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from libs.service_kit.settings import SecretsBackend
from services.secrets.secret_id import SecretId
from services.secrets.secret_text import SecretText


class PreparedChange(Protocol):
    """A change that can be made now. `existed`: there is a value that it replaces or removes."""

    @property
    def existed(self) -> bool: ...

    @property
    def store_version(self) -> int:
        """The number that the store will give it; 0 when it doesn't count."""
        ...

    async def commit(self) -> None:
        """Makes it, whole or not at all."""


class SecretStore(Protocol):
    """One place that keeps values. Every method raises the LabferryError of a place that can't be used now."""

    async def get(self, secret: SecretId) -> SecretText | None: ...

    async def usernames(self, service: str) -> frozenset[str] | None:
        """What it keeps for a service; None when it can't be listed."""

    def changing(self, secret: SecretId, value: SecretText | None) -> AbstractAsyncContextManager[PreparedChange]:
        """Gets ready whatever can fail, so that the change can be recorded before `commit` makes it.

        `value` None: it is removed.
        """


class FirstStore(SecretStore, Protocol):
    """A place that is asked before the encrypted file. `before_file` False: in the place of it. `address` is shown to
    operators; empty where there is none."""

    backend: SecretsBackend
    before_file: bool
    address: str

    async def problem(self) -> str:
        """Why it can't be used now; empty: it can. Asks it."""
        ...
