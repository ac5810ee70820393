"""creation.json under other programs, kills, full and read-only disks: no update lost, the file always whole (SPEC
§2).
"""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from libs.run_tree.creation_errors import CreationNotWritableError
from libs.run_tree.creation_json import mutate_creation, read_creation
from libs.run_tree.creation_record import SyncStatus

PROCESSES = 8
UPDATES = 250
KILLS = 40

OUR_WRITER = """
import sys
from pathlib import Path
from libs.run_tree.creation_json import mutate_creation
from libs.run_tree.overrides import OverrideEntry
path, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
for number in range(count):
    entry = OverrideEntry({"id": f"{name}-{number}"})
    mutate_creation(path, lambda record: record.with_appended_overrides([entry]))
"""

# How another program does it: filelock over its own read-change-write.
THEIR_WRITER = """
import json, os, sys
from filelock import FileLock
path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
for number in range(count):
    with FileLock(path + ".lock"):
        with open(path) as stream:
            document = json.load(stream)
        document.setdefault("validation_overrides", []).append({"id": f"{name}-{number}"})
        with open(path + "." + name + ".tmp", "w") as stream:
            json.dump(document, stream)
        os.replace(path + "." + name + ".tmp", path)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "creation.json"
    path.write_text('{"schema_version":"1.8","level":"run","unknown":{"deep":[1,{"é":null}]}}')
    return path


def start(program: str, path: Path, name: str, count: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", program, str(path), name, str(count)], stdout=subprocess.PIPE)


@pytest.fixture
def path_in_memory() -> Iterator[Path]:
    """Four thousand updates are no test of the disk."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = Path(folder) / "creation.json"
        path.write_text('{"schema_version":"1.8","level":"run","unknown":{"deep":[1,{"é":null}]}}')
        yield path


@pytest.mark.slow
def test_no_update_of_eight_processes_is_lost(path_in_memory: Path) -> None:
    path = path_in_memory
    writers = [
        start(THEIR_WRITER if number % 2 else OUR_WRITER, path, f"w{number}", UPDATES) for number in range(PROCESSES)
    ]
    assert [writer.wait(120) for writer in writers] == [0] * PROCESSES
    ids = [entry.id for entry in read_creation(path).overrides]
    assert len(ids) == PROCESSES * UPDATES
    assert set(ids) == {f"w{writer}-{number}" for writer in range(PROCESSES) for number in range(UPDATES)}
    for writer in range(PROCESSES):
        own = [entry_id for entry_id in ids if entry_id is not None and entry_id.startswith(f"w{writer}-")]
        assert own == [f"w{writer}-{number}" for number in range(UPDATES)]
    assert read_creation(path).raw["unknown"] == {"deep": [1, {"é": None}]}


def test_a_lock_that_another_process_holds_is_waited_for(path: Path) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from filelock import FileLock; lock = FileLock(sys.argv[1]); lock.acquire();"
            "print('held', flush=True); sys.stdin.readline(); print('released', flush=True); lock.release()",
            f"{path}.lock",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None and holder.stdin is not None
    assert holder.stdout.readline() == b"held\n"
    inside = threading.Event()
    done = threading.Event()

    def mutate() -> None:
        mutate_creation(path, lambda record: (inside.set(), record.with_sync_status(SyncStatus.SYNCED))[1])
        done.set()

    writer = threading.Thread(target=mutate)
    writer.start()
    assert not inside.wait(0.3)
    holder.stdin.write(b"\n")
    holder.stdin.flush()
    assert done.wait(30)
    writer.join()
    assert holder.wait(30) == 0
    assert read_creation(path).sync_status is SyncStatus.SYNCED


def test_our_lock_keeps_another_process_out(path: Path) -> None:
    attempt = [
        sys.executable,
        "-c",
        "import sys; from filelock import FileLock, Timeout\n"
        "try: FileLock(sys.argv[1], timeout=0.2).acquire()\nexcept Timeout: sys.exit(7)",
        f"{path}.lock",
    ]
    seen = []
    mutate_creation(path, lambda record: (seen.append(subprocess.run(attempt, check=False).returncode), record)[1])
    assert seen == [7]
    assert subprocess.run(attempt, check=False).returncode == 0


@pytest.mark.slow
def test_killed_at_random_instants_the_file_is_always_whole(path: Path) -> None:
    chance = random.Random(2)
    count = 0
    for number in range(KILLS):
        writer = start(OUR_WRITER, path, f"k{number}", 1_000_000)
        assert writer.stdout is not None
        writer.stdout.readline()
        # The instant is random, nothing is waited for.
        threading.Event().wait(chance.uniform(0, 0.03))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        record = read_creation(path)
        own = [entry.id for entry in record.overrides if str(entry.id).startswith(f"k{number}-")]
        assert own == [f"k{number}-{index}" for index in range(len(own))]
        assert len(record.overrides) == count + len(own)
        count += len(own)
    assert count > 0
    mutate_creation(path, lambda record: record.with_sync_status(SyncStatus.SYNCED), lock_timeout=5)
    assert len(json.loads(path.read_text())["validation_overrides"]) == count


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> None:
    with open(folder / "filler", "wb", buffering=0) as stream:
        try:
            while True:
                stream.write(b"\0" * 4096)
        except OSError as error:
            assert error.errno == errno.ENOSPC


def test_a_full_disk_is_one_sentence_and_changes_nothing(small_disk: Path) -> None:
    path = small_disk / "creation.json"
    path.write_text('{"schema_version":"1.8","level":"run"}')
    path.with_name("creation.json.lock").touch()
    fill(small_disk)
    before = path.read_bytes()
    with pytest.raises(CreationNotWritableError, match="No space left on device") as refusal:
        mutate_creation(path, lambda record: record.with_sync_status(SyncStatus.SYNCED))
    assert "\n" not in refusal.value.message
    assert path.read_bytes() == before
    assert sorted(os.listdir(small_disk)) == ["creation.json", "creation.json.lock", "filler"]


def test_a_read_only_disk_is_one_sentence_and_changes_nothing(small_disk: Path) -> None:
    path = small_disk / "creation.json"
    path.write_text('{"schema_version":"1.8","level":"run"}')
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(CreationNotWritableError, match="Read-only file system"):
        mutate_creation(path, lambda record: record.with_sync_status(SyncStatus.SYNCED))
    assert read_creation(path).sync_status is SyncStatus.PENDING
