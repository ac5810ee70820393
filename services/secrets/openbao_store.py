"""OpenBao, or HashiCorp Vault, as a place that keeps values: a KV engine of version 2, through the `hvac` library."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, unquote

import hvac
import requests
from hvac import exceptions as refusals

from libs.service_kit.openbao_settings import OpenBaoSettings
from libs.service_kit.settings import SecretsBackend
from libs.service_kit.telemetry import Logger
from libs.service_kit.work_threads import WorkThreads
from services.secrets.errors import (
    NoSuchMountError,
    OpenBaoRefusedError,
    OpenBaoUnavailableError,
    SecretChangedMeanwhileError,
    StoreDamagedError,
)
from services.secrets.openbao_login import OpenBaoLogin
from services.secrets.secret_id import SecretId
from services.secrets.secret_text import SecretText

_KEY = "value"
_NO_MOUNT = "no handler for route"
_OTHER_VERSION = "check-and-set"
_LOOK_SECONDS = 5.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Kept:
    """`version`: the engine's own number, 0 when there never was any. `text` None: the newest version is deleted."""

    version: int
    text: SecretText | None


@dataclass(frozen=True, slots=True)
class OpenBaoChange:
    """Implements `PreparedChange`."""

    existed: bool
    store_version: int
    make: Callable[[], Any]
    threads: WorkThreads

    async def commit(self) -> None:
        """As `PreparedChange.commit`. SecretChangedMeanwhileError when somebody else wrote since it was looked at."""
        await self.threads.run(self.make)


class OpenBaoStore:
    """Implements `FirstStore`. Every method raises OpenBaoUnavailableError when it doesn't answer or is sealed,
    OpenBaoRefusedError when it refuses this service, NoSuchMountError when there is no such engine."""

    backend = SecretsBackend.OPENBAO
    before_file = False

    def __init__(self, settings: OpenBaoSettings, threads: WorkThreads, logger: Logger) -> None:
        self.address = settings.address
        self._settings = settings
        self._threads = threads
        self._logger = logger
        self._login = OpenBaoLogin(settings)

    async def get(self, secret: SecretId) -> SecretText | None:
        """As `SecretStore.get`."""
        return (await self._threads.run(lambda: self._kept(secret))).text

    async def usernames(self, service: str) -> frozenset[str]:
        """As `SecretStore.usernames`."""

        def listed(client: hvac.Client) -> list[str]:
            folder = f"{self._settings.path_prefix}/{_segment(service)}"
            answer = client.secrets.kv.v2.list_secrets(folder, mount_point=self._settings.mount)
            return list(answer["data"]["keys"])

        try:
            keys = await self._threads.run(lambda: self._asked(listed))
        except _NothingThereError:
            return frozenset()
        return frozenset(unquote(key) for key in keys if not key.endswith("/"))

    @asynccontextmanager
    async def changing(self, secret: SecretId, value: SecretText | None) -> AsyncIterator[OpenBaoChange]:
        """As `SecretStore.changing`: what was written since is never overwritten."""
        kept = await self._threads.run(lambda: self._kept(secret))
        existed = kept.text is not None
        if value is None:
            yield OpenBaoChange(existed, 0, lambda: self._remove(secret) if existed else None, self._threads)
        else:
            version = kept.version
            yield OpenBaoChange(existed, version + 1, lambda: self._write(secret, value, version), self._threads)

    async def problem(self) -> str:
        """Why it can't be used now; empty: it can. Asks it."""
        try:
            await self.usernames("")
        except (OpenBaoUnavailableError, OpenBaoRefusedError, NoSuchMountError) as error:
            return error.message
        return ""

    async def renew_tokens(self) -> None:
        """Keeps this service logged in until it is cancelled."""
        while True:
            due = await self._threads.run(self._login.seconds_to_renewal)
            await asyncio.sleep(_LOOK_SECONDS if due is None else min(due, _LOOK_SECONDS))
            if due is not None and due <= _LOOK_SECONDS:
                try:
                    await self._threads.run(lambda: self._translated(self._login.renew))
                except (OpenBaoUnavailableError, OpenBaoRefusedError, NoSuchMountError) as error:
                    self._logger.warning("openbao_token_not_renewed", problem=error.message)

    # What follows blocks and runs in threads.

    def _kept(self, secret: SecretId) -> _Kept:
        def read(client: hvac.Client) -> Any:
            return client.secrets.kv.v2.read_secret_version(
                self._path(secret), mount_point=self._settings.mount, raise_on_deleted_version=False
            )

        try:
            data = self._asked(read)["data"]
        except _NothingThereError:
            return _Kept(0, None)
        version = int(data["metadata"]["version"])
        if data["data"] is None:
            return _Kept(version, None)
        text = data["data"].get(_KEY)
        if not isinstance(text, str):
            raise StoreDamagedError(Path(self._path(secret)), f'it holds no text under "{_KEY}"')
        return _Kept(version, SecretText(text))

    def _write(self, secret: SecretId, value: SecretText, after_version: int) -> None:
        def write(client: hvac.Client) -> None:
            client.secrets.kv.v2.create_or_update_secret(
                self._path(secret), {_KEY: value.reveal()}, cas=after_version, mount_point=self._settings.mount
            )

        try:
            self._asked(write)
        except _NotAsItWasError:
            raise SecretChangedMeanwhileError(secret) from None

    def _remove(self, secret: SecretId) -> None:
        def remove(client: hvac.Client) -> None:
            client.secrets.kv.v2.delete_metadata_and_all_versions(self._path(secret), mount_point=self._settings.mount)

        self._asked(remove)

    def _asked(self, ask: Callable[[hvac.Client], T]) -> T:
        """Logs in anew, once, when the token doesn't count any more."""

        def first() -> T:
            client = self._login.client()
            try:
                return ask(client)
            except (refusals.Forbidden, refusals.Unauthorized):
                self._login.forget(client)
                return ask(self._login.client())

        return self._translated(first)

    def _translated(self, work: Callable[[], T]) -> T:
        """The errors of the libraries as ours. Their texts may quote what was sent, so none of it is passed on."""
        try:
            return work()
        except refusals.InvalidPath as error:
            if any(_NO_MOUNT in said for said in error.errors or ()):
                raise NoSuchMountError(self._settings.address, self._settings.mount) from None
            raise _NothingThereError from None
        except (refusals.Forbidden, refusals.Unauthorized):
            raise OpenBaoRefusedError(f"{self._settings.address} refuses this service") from None
        except refusals.InvalidRequest as error:
            if any(_OTHER_VERSION in said for said in error.errors or ()):
                raise _NotAsItWasError from None
            raise OpenBaoRefusedError(f"{self._settings.address} refuses the login or the request") from None
        except refusals.VaultDown:
            raise OpenBaoUnavailableError(self._settings.address, "it is sealed, or on standby") from None
        except requests.exceptions.SSLError:
            raise OpenBaoUnavailableError(self._settings.address, "its certificate is not to be trusted") from None
        except (refusals.VaultError, requests.exceptions.RequestException, ValueError) as error:
            raise OpenBaoUnavailableError(self._settings.address, type(error).__name__) from None

    def _path(self, secret: SecretId) -> str:
        return f"{self._settings.path_prefix}/{_segment(secret.service)}/{_segment(secret.username)}"


class _NotAsItWasError(Exception):
    """It was written since it was looked at."""


class _NothingThereError(Exception):
    """No such path."""


def _segment(name: str) -> str:
    """One segment of a path, whatever the name holds; names of services and equipment look as they are."""
    return quote(name, safe=":@").replace(".", "%2E")
