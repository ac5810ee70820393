"""A process killed anywhere in a copy: no damaged file under a final name, and nothing that landed is sent again."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from services.sync_engine.transfer.incoming import INCOMING
from services.sync_engine.transfer.transport import CopiedFile
from tests.integration.transfer.carrying import Carrying, tree, write

FILES = 1500
KILLS = 12

# The job engine's part in small: each batch is durable in a journal before it lands.
CHILD = """
import json, os, sys
from pathlib import Path
from services.sync_engine.transfer.mounted import MountedTransport
from services.sync_engine.transfer.transport import CopiedFile
from tests.faults.transfer.test_kill_and_resume import read_journal
from tests.integration.transfer.carrying import Carrying

source, destination, journal, attempt = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
carrying = Carrying(source, destination, MountedTransport(destination), attempt=attempt - 1)
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


@pytest.mark.slow
def test_killed_at_random_instants_and_resumed(carrying: Carrying, tmp_path: Path) -> None:
    chance = random.Random(5)
    for number in range(FILES):
        write(carrying.source, b"folder%d/\xff%04d" % (number % 9, number), chance.randbytes(4000))
    for number in range(3):
        write(carrying.source, b"large%d" % number, chance.randbytes(9_000_000))
    whole = tree(carrying.source)
    journal = tmp_path / "journal"
    for attempt in range(1, KILLS + 1):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, carrying.source, carrying.destination, journal, str(attempt)],
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        child.stdout.readline()
        # The instant is random, nothing is waited for.
        threading.Event().wait(chance.uniform(0, 0.25))
        while attempt == KILLS and not (carrying.run.exists() and any(carrying.run.glob("*/*"))):
            threading.Event().wait(0.01)
            assert child.poll() is None
        child.kill()
        child.wait()
        at_destination = tree(carrying.run) if carrying.run.exists() else {}
        assert at_destination.items() <= whole.items()
    landed = {path for path, content in at_destination.items() if content is not None}
    assert landed
    carrying.batches = [read_journal(journal)]
    carrying.attempt = KILLS
    assert landed <= {file.path for file in carrying.landed}
    carrying.transport.sweep("job", keep_attempt=None, control=carrying.control)
    assert os.listdir(os.path.join(os.fsencode(carrying.destination), INCOMING)) == []
    copied = carrying.copy()
    sent = {file.path for batch in carrying.batches[1:] for file in batch}
    assert sent.isdisjoint(landed)
    assert len(sent) + len(landed) == FILES + 3
    assert tree(carrying.run) == whole
    assert carrying.verify(copied).matched == FILES + 3


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
