"""The operating system's keyring, through the `keyring` library: off the event loop and with a time limit."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from libs.service_kit.settings import SecretsBackend
from services.secrets.errors import KeyringMissingError, KeyringUnavailableError
from services.secrets.secret_id import DEFAULT_SERVICE, PROBE_USERNAME, SecretId
from services.secrets.secret_text import SecretText

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

_TIMEOUT_SECONDS = 10.0
_PROBE_VALUE = "ok"
_PROBLEMS = {
    "KeyringLocked": "it is locked, and nobody unlocked it",
}
_NO_KEYRING = "NoKeyringError"

T = TypeVar("T")


class KeyringState(Enum):
    """ABSENT: there is none, or one that only pretends. UNUSABLE: there is one, and it is locked, hangs or fails."""

    WORKS = "works"
    ABSENT = "absent"
    UNUSABLE = "unusable"


@dataclass(frozen=True, slots=True)
class KeyringChange:
    """Implements `PreparedChange`."""

    existed: bool
    make: Callable[[], Awaitable[None]]

    @property
    def store_version(self) -> int:
        """As `PreparedChange.store_version`: a keyring doesn't count."""
        return 0

    async def commit(self) -> None:
        """As `PreparedChange.commit`."""
        await self.make()


class OsKeyring:
    """Secrets in the keyring of the user that the service runs as. Implements `FirstStore`.

    Every method raises KeyringUnavailableError when the keyring fails or doesn't answer in time. A call that hangs (a
    locked keyring may wait for a person) is left behind; until it ends, further calls fail at once.
    """

    backend = SecretsBackend.OS_KEYRING
    before_file = True
    address = ""

    def __init__(self, timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        self._timeout = timeout_seconds
        self._one_at_a_time = asyncio.Lock()
        self._under_way: asyncio.Future[Any] | None = None

    async def state(self) -> KeyringState:
        """Found out with a sentinel that is stored, read back and removed."""
        try:
            return KeyringState.WORKS if await self._call(_probe) else KeyringState.ABSENT
        except KeyringMissingError:
            return KeyringState.ABSENT
        except KeyringUnavailableError:
            return KeyringState.UNUSABLE

    async def problem(self) -> str:
        """As `FirstStore.problem`."""
        try:
            await self.get(SecretId(DEFAULT_SERVICE, PROBE_USERNAME))
        except KeyringUnavailableError as error:
            return error.message
        return ""

    async def get(self, secret: SecretId) -> SecretText | None:
        def read() -> SecretText | None:
            text = _backend().get_password(secret.service, secret.username)
            return None if text is None else SecretText(text)

        return await self._call(read)

    async def usernames(self, service: str) -> None:
        """As `SecretStore.usernames`: a keyring can't be listed."""

    @asynccontextmanager
    async def changing(self, secret: SecretId, value: SecretText | None) -> AsyncIterator[KeyringChange]:
        """As `SecretStore.changing`."""
        existed = await self.get(secret) is not None
        yield KeyringChange(existed, lambda: self._set(secret, value) if value is not None else self._delete(secret))

    async def _set(self, secret: SecretId, value: SecretText) -> None:
        def write() -> None:
            _backend().set_password(secret.service, secret.username, value.reveal())

        await self._call(write)

    async def _delete(self, secret: SecretId) -> None:
        def remove() -> None:
            from keyring.errors import PasswordDeleteError

            backend = _backend()
            if backend.get_password(secret.service, secret.username) is None:
                return
            try:
                backend.delete_password(secret.service, secret.username)
            except PasswordDeleteError:
                # Removed by another program in between; anything else is a failure.
                if backend.get_password(secret.service, secret.username) is not None:
                    raise

        await self._call(remove)

    async def _call(self, work: Callable[[], T]) -> T:
        async with self._one_at_a_time:
            if self._under_way is not None and not self._under_way.done():
                raise KeyringUnavailableError("an earlier call has not come back")
            loop = asyncio.get_running_loop()
            done: asyncio.Future[T] = loop.create_future()
            self._under_way = done
            # A daemon thread of its own: one that hangs must hold up neither a pool nor the end of the process.
            threading.Thread(target=_run, args=(work, loop, done), name="os-keyring", daemon=True).start()
            try:
                async with asyncio.timeout(self._timeout):
                    # Shielded, because whoever gives up leaves the thread at work.
                    return await asyncio.shield(done)
            except TimeoutError:
                raise KeyringUnavailableError(f"no answer after {self._timeout:.0f} seconds") from None


def _run(work: Callable[[], T], loop: asyncio.AbstractEventLoop, done: asyncio.Future[T]) -> None:
    try:
        result = work()
    except Exception as error:  # noqa: BLE001 -- backends raise whatever their system library raises
        # The class alone: the text of a foreign library could quote what it was given.
        name = type(error).__name__
        missing = KeyringMissingError() if name == _NO_KEYRING else None
        problem = missing or KeyringUnavailableError(_PROBLEMS.get(name, name))
        _hand_over(loop, lambda: done.set_exception(problem))
        return
    _hand_over(loop, lambda: done.set_result(result))


def _hand_over(loop: asyncio.AbstractEventLoop, settle: Callable[[], None]) -> None:
    # The loop may have closed meanwhile: then nobody waits any more.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(settle)


def _backend() -> KeyringBackend:
    """The keyring that the library finds, looked for again while it finds none: a desktop's may start after us."""
    # Imported in the thread: the import looks for backends, and some of them ask the session bus.
    from keyring import backend, core
    from keyring.backends import fail

    found = core.get_keyring()
    if isinstance(found, fail.Keyring):
        with suppress(AttributeError, KeyError):
            # The library remembers for ever what it found; nothing is remembered where a setting names the backend.
            backend.get_all_keyring.reset()
        core.init_backend()
        found = core.get_keyring()
    return found


def _probe() -> bool:
    keyring = _backend()
    keyring.set_password(DEFAULT_SERVICE, PROBE_USERNAME, _PROBE_VALUE)
    kept = keyring.get_password(DEFAULT_SERVICE, PROBE_USERNAME) == _PROBE_VALUE
    keyring.delete_password(DEFAULT_SERVICE, PROBE_USERNAME)
    return kept
