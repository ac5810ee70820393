"""`labferry up` on a real terminal asks for the passphrase of the secrets, unseen, and again when it was wrong."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.integration.sync_engine.running_engine import Site, new_site

PASSPHRASE = "typed, and seen by nobody"


@dataclass
class Terminal:
    """What somebody sees and types. `ahead`: what was shown and not waited for yet."""

    master: int
    process: asyncio.subprocess.Process
    shown: str = ""
    ahead: str = ""

    async def until(self, text: str) -> None:
        """Waits for what has not been seen yet, and forgets what came before it.

        The space after a prompt is written by itself: a service's log line may come between them.
        """
        async with asyncio.timeout(60):
            while text not in self.ahead:
                more = (await asyncio.to_thread(os.read, self.master, 4096)).decode()
                self.shown += more
                self.ahead += more
        self.ahead = self.ahead.partition(text)[2]

    async def type(self, text: str) -> None:
        """As soon as nothing is echoed: a prompt that was seen may not have put the terminal into order yet."""
        async with asyncio.timeout(60):
            while termios.tcgetattr(self.master)[3] & termios.ECHO:
                await asyncio.sleep(0.01)
        os.write(self.master, text.encode() + b"\n")


@asynccontextmanager
async def up_on_a_terminal(site: Site) -> AsyncIterator[Terminal]:
    master, slave = os.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).parent / "labferry"), "up", "--config", str(site.lab.write_config())),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=take_terminal,
    )
    os.close(slave)
    try:
        yield Terminal(master, process)
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(60):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(master)


async def test_the_passphrase_is_asked_for_on_a_terminal_and_never_shown() -> None:
    async with new_site() as site:
        site.equip()
        async with up_on_a_terminal(site) as terminal:
            await terminal.until("New passphrase for the secrets file:")
            await terminal.type("short")
            await terminal.until("at least 8 characters")
            await terminal.until("New passphrase for the secrets file:")
            await terminal.type(PASSPHRASE)
            await terminal.until("the secrets are open")
        assert site.lab.secrets_file.exists()
        async with up_on_a_terminal(site) as terminal:
            await terminal.until("Passphrase of the secrets file:")
            await terminal.type("a wrong passphrase")
            await terminal.until("does not open the encrypted file")
            await terminal.until("Passphrase of the secrets file:")
            await terminal.type(PASSPHRASE)
            await terminal.until("the secrets are open")
            assert PASSPHRASE not in terminal.shown
            assert "a wrong passphrase" not in terminal.shown
