"""A real Secret Service for one test: a session bus of its own, and GNOME's keyring daemon on it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

import secretstorage
from jeepney.io.blocking import open_dbus_connection

from services.secrets.secret_id import DEFAULT_SERVICE

_PATIENCE = 60.0
_LOGIN_PASSWORD = b"what the person logs in with"
# It names no folder of services that the bus could start: a daemon that is gone stays gone.
_BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy>
</busconfig>
"""


@dataclass
class SecretService:
    """Somebody's desktop session, as far as its keyring goes. `folder` is the person's home."""

    folder: Path
    daemon: asyncio.subprocess.Process | None = None

    @property
    def environment(self) -> Mapping[str, str]:
        """Gives a process this keyring and no other."""
        home = str(self.folder)
        folders = {f"XDG_{kind}_HOME": f"{home}/{kind.lower()}" for kind in ("CONFIG", "DATA", "CACHE", "STATE")}
        return {**folders, "HOME": home, "XDG_RUNTIME_DIR": home, "DBUS_SESSION_BUS_ADDRESS": f"unix:path={home}/bus"}

    async def start_daemon(self) -> None:
        """Unlocked, as a login does it. Returns once it answers for its default collection."""
        self.daemon = await asyncio.create_subprocess_exec(
            *("gnome-keyring-daemon", "--foreground", "--unlock", "--components=secrets"),
            f"--control-directory={self.folder}/control",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, **self.environment},
        )
        assert self.daemon.stdin is not None
        self.daemon.stdin.write(_LOGIN_PASSWORD)
        self.daemon.stdin.close()
        async with asyncio.timeout(_PATIENCE):
            while not await asyncio.to_thread(self._answers):
                assert self.daemon.returncode is None, "gnome-keyring-daemon ended"
                await asyncio.sleep(0.02)

    async def kill_daemon(self) -> None:
        assert self.daemon is not None
        if self.daemon.returncode is None:
            self.daemon.kill()
        await self.daemon.wait()

    # What another program of the same person sees and does. Blocks for some milliseconds.

    def values(self) -> dict[str, str]:
        """Username → value of everything that lies in the keyring for our default service."""
        with closing(self._connect()) as connection:
            found = secretstorage.search_items(connection, {"service": DEFAULT_SERVICE})
            return {item.get_attributes()["username"]: item.get_secret().decode() for item in found}

    def put(self, username: str, value: str) -> None:
        with closing(self._connect()) as connection:
            # As ExLab-Wizard's entries look, which come from the same library as ours.
            attributes = {
                "application": "Python keyring library",
                "service": DEFAULT_SERVICE,
                "username": username,
            }
            collection = secretstorage.get_default_collection(connection)
            collection.create_item(username, attributes, value.encode(), replace=True)

    def lock(self) -> None:
        with closing(self._connect()) as connection:
            secretstorage.get_default_collection(connection).lock()

    def _connect(self) -> secretstorage.DBusConnection:
        return open_dbus_connection(self.environment["DBUS_SESSION_BUS_ADDRESS"])

    def _answers(self) -> bool:
        with closing(self._connect()) as connection:
            if not secretstorage.check_service_availability(connection):
                return False
            return not secretstorage.get_default_collection(connection).is_locked()


@asynccontextmanager
async def session(folder: Path) -> AsyncIterator[SecretService]:
    """A session bus without a keyring daemon yet; both end with it."""
    folder.mkdir(mode=0o700)
    configuration = folder / "bus.conf"
    configuration.write_text(_BUS.format(socket=folder / "bus"), encoding="utf-8")
    bus = await asyncio.create_subprocess_exec(
        *("dbus-daemon", "--nofork", f"--config-file={configuration}", "--print-address=1"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    service = SecretService(folder)
    try:
        assert bus.stdout is not None
        async with asyncio.timeout(_PATIENCE):
            assert await bus.stdout.readline(), "dbus-daemon ended"
        yield service
    finally:
        if service.daemon is not None:
            await service.kill_daemon()
        if bus.returncode is None:
            bus.terminate()
        await bus.wait()
