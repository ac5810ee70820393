"""A process killed anywhere in a copy: no damaged file under a final name, and nothing that landed is sent again."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from services.sync_engine.transfer.bandwidth import UNLIMITED
from services.sync_engine.transfer.far_side import FarPlace
from services.sync_engine.transfer.incoming import INCOMING
from services.sync_engine.transfer.mounted import MountedTransport
from services.sync_engine.transfer.rclone_place import RclonePlace
from services.sync_engine.transfer.rclone_remote import RcloneRemote
from services.sync_engine.transfer.remote_transport import RemoteTransport
from services.sync_engine.transfer.rsync_far import RsyncPlace
from services.sync_engine.transfer.ssh_session import SshAccess
from services.sync_engine.transfer.tools import RCLONE, RSYNC, SSH, Toolbox
from services.sync_engine.transfer.transport import CopiedFile, Transport
from tests.integration.transfer.carrying import Carrying, tree, write
from tests.integration.transfer.far_servers import running_sshd

PATIENCE = 30.0

# The job engine's part in small: each batch is durable in a journal before it lands.
CHILD = """
import json, os, sys
from pathlib import Path
import msgspec
from tests.faults.transfer.test_kill_and_resume import Way, read_journal
from tests.integration.transfer.carrying import Carrying

source, destination, journal, attempt = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
way = msgspec.json.decode(sys.argv[5], type=Way)
carrying = Carrying(source, destination, way.open(destination), attempt=attempt - 1)
carrying.batches = [read_journal(journal)]
if journal.exists():
    # What a kill cut off would spoil the line that comes after it.
    os.truncate(journal, journal.read_bytes().rfind(b"\\n") + 1)

def note(batch):
    with open(journal, "a") as stream:
        for file in batch:
            fields = [file.path.hex(), file.size, file.mtime_ns, file.ctime_ns, file.inode, file.sha256]
            stream.write(json.dumps(fields) + "\\n")
        stream.flush()
        os.fsync(stream.fileno())

carrying.transport.sweep("job", keep_attempt=attempt, control=carrying.control)
print("begun", flush=True)
carrying.copy(note)
"""


def read_journal(journal: Path) -> list[CopiedFile]:
    lines = journal.read_text().split("\n") if journal.exists() else []
    files = []
    # The last line may be cut off: its batch had not begun to land.
    for line in lines[:-1]:
        path, size, mtime_ns, ctime_ns, inode, sha256 = json.loads(line)
        files.append(CopiedFile(bytes.fromhex(path), size, mtime_ns, ctime_ns, inode, sha256))
    return files


class Way(msgspec.Struct, frozen=True):
    """How a run is carried, told to another process; neither of the two: mounted."""

    rclone_config: str = ""
    ssh: tuple[str, str, int, str] | None = None
    files: int = 1500
    kills: int = 12
    longest: float = 0.25
    begins: bytes = b"\xff"

    def open(self, destination: Path) -> Transport:
        tools = Toolbox((RCLONE,)) if self.rclone_config else Toolbox((RSYNC, SSH))
        if self.rclone_config:
            remote = RcloneRemote("far", "", Path(self.rclone_config))
            far: FarPlace = RclonePlace(remote, tools=tools, bandwidth=UNLIMITED)
        elif self.ssh is not None:
            target, key, port, known_hosts = self.ssh
            access = SshAccess(target, Path(key), port, Path(known_hosts))
            far = RsyncPlace(access, str(destination), tools=tools, bandwidth=UNLIMITED)
        else:
            return MountedTransport(destination)
        return RemoteTransport(far, max_stream_bytes=1 << 30, batch_files=60)


@pytest.fixture(params=["mounted", "rsync_ssh", "rclone"])
def way(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Way, Callable[[], None]]]:
    """And what waits until the far side of a process that was killed has ended too."""
    match request.param:
        case "mounted":
            yield Way(), lambda: None
        case "rclone":
            config = tmp_path / "rclone.conf"
            config.write_text(f"[far]\ntype = alias\nremote = {tmp_path}/nas\n")
            yield Way(str(config), files=300, kills=4, longest=0.6, begins=b""), lambda: None
        case _:
            with running_sshd(tmp_path / "sshd") as sshd:
                access = sshd.access
                assert access.port is not None
                ssh = (access.target, str(access.key_path), access.port, str(access.known_hosts))

                def until_over() -> None:
                    end = time.monotonic() + PATIENCE
                    while subprocess.run(["pgrep", "-P", str(sshd.process.pid)], capture_output=True).returncode == 0:
                        assert time.monotonic() < end
                        threading.Event().wait(0.05)

                yield Way(ssh=ssh, files=300, kills=4, longest=0.8), until_over


@pytest.mark.slow
def test_killed_at_random_instants_and_resumed(
    carrying: Carrying, tmp_path: Path, way: tuple[Way, Callable[[], None]]
) -> None:
    how, until_over = way
    carrying.transport = how.open(carrying.destination)
    chance = random.Random(5)
    for number in range(how.files):
        write(carrying.source, b"folder%d/%s%04d" % (number % 9, how.begins, number), chance.randbytes(4000))
    for number in range(3):
        write(carrying.source, b"large%d" % number, chance.randbytes(9_000_000))
    whole = tree(carrying.source)
    journal = tmp_path / "journal"
    for attempt in range(1, how.kills + 1):
        child = subprocess.Popen(
            [
                *(sys.executable, "-c", CHILD, carrying.source, carrying.destination, journal, str(attempt)),
                msgspec.json.encode(how).decode(),
            ],
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        child.stdout.readline()
        # The instant is random, nothing is waited for.
        threading.Event().wait(chance.uniform(0, how.longest))
        while attempt == how.kills and not (carrying.run.exists() and any(carrying.run.glob("*/*"))):
            threading.Event().wait(0.01)
            assert child.poll() is None
        child.kill()
        child.wait()
        at_destination = tree(carrying.run) if carrying.run.exists() else {}
        assert at_destination.items() <= whole.items()
    until_over()
    at_destination = tree(carrying.run)
    assert at_destination.items() <= whole.items()
    landed = {path for path, content in at_destination.items() if content is not None}
    assert landed
    carrying.batches = [read_journal(journal)]
    carrying.attempt = how.kills
    assert landed <= {file.path for file in carrying.landed}
    carrying.transport.sweep("job", keep_attempt=None, control=carrying.control)
    assert os.listdir(os.path.join(os.fsencode(carrying.destination), INCOMING)) == []
    copied = carrying.copy()
    sent = {file.path for batch in carrying.batches[1:] for file in batch}
    assert sent.isdisjoint(landed)
    assert len(sent) + len(landed) == how.files + 3
    assert tree(carrying.run) == whole
    assert carrying.verify(copied).matched == how.files + 3


def test_killed_between_the_log_and_the_landing(carrying: Carrying) -> None:
    """What the log says was about to land, and isn't there, is sent again."""
    write(carrying.source, b"a", b"x")

    class Killed(BaseException):
        pass

    def kill(batch: object) -> None:
        raise Killed

    with pytest.raises(Killed):
        carrying.copy(kill)
    assert [file.path for file in carrying.landed] == [b"a"]
    copied = carrying.copy()
    assert tree(carrying.run) == {b"a": b"x"}
    assert carrying.verify(copied).proven
