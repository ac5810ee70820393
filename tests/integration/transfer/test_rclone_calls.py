"""Calls that rclone is handed together end as if each had been made alone; also where rclone takes one
at a time.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.sync_engine.transfer.bandwidth import UNLIMITED, SharedBandwidth
from services.sync_engine.transfer.rclone_calls import FileCall, call_for_each
from services.sync_engine.transfer.rclone_daemon import RcloneDaemon, RcloneError
from services.sync_engine.transfer.rclone_hashing import RcloneHashing
from services.sync_engine.transfer.rclone_move import WholeFile, land_files, take_away
from services.sync_engine.transfer.rclone_start import open_rclone
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import TransferError

COUNT = 200


@pytest.fixture(params=[True, False], ids=["together", "one by one"])
def daemon(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[RcloneDaemon]:
    config = tmp_path / "rclone.conf"
    config.write_text(f"[far]\ntype = alias\nremote = {tmp_path}\n")
    with open_rclone(config, TransferControl(), SharedBandwidth(UNLIMITED)) as daemon:
        assert daemon.takes_many, "the rclone of the tests takes many calls as one"
        monkeypatch.setattr(RcloneDaemon, "takes_many", request.param)
        yield daemon


def test_of_many_files_the_one_that_fails_is_named_and_the_others_are_done(
    tmp_path: Path, daemon: RcloneDaemon
) -> None:
    names = [b"file%03d" % number for number in range(COUNT)]
    (tmp_path / "from").mkdir()
    for name in names:
        (tmp_path / "from" / os.fsdecode(name)).write_bytes(name)
    # The last of those that are handed over together.
    (tmp_path / "from" / "file063").unlink()
    copying: FileCall[bytes] = FileCall(
        "copying",
        "operations/copyfile",
        lambda name, _: {
            "srcFs": "far:from",
            "srcRemote": name.decode(),
            "dstFs": "far:to",
            "dstRemote": name.decode(),
        },
        lambda name: name,
        lambda name: 0,
    )
    with pytest.raises(TransferError, match="object not found") as refused:
        call_for_each(daemon, copying, names[:64])
    assert refused.value.paths == (b"file063",)
    call_for_each(daemon, copying, names[64:])
    assert {path.name for path in (tmp_path / "to").iterdir()} == {os.fsdecode(n) for n in names} - {"file063"}


@pytest.mark.parametrize("download", [False, True])
def test_every_file_is_hashed_whatever_it_is_called(
    tmp_path: Path, daemon: RcloneDaemon, download: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [b"file%03d" % number for number in range(COUNT)]
    names += [b"two\nlines", b"returned\rcarriage", b"# no remark", b"; nor this", b" spaces ", b"back\\slash", b"a  b"]
    names += ["\N{LINE SEPARATOR}ü".encode(), b"sub/" + b"0" * 64 + b"  file000"]
    run = tmp_path / "run"
    (run / "sub").mkdir(parents=True)
    for name in names:
        (run / os.fsdecode(name)).write_bytes(b"content of " + name)
    # One that is gone since it was listed, and one that nobody asks for.
    asked = {name: (run / os.fsdecode(name)).stat().st_size for name in names} | {b"gone": 7}
    (run / "other").write_bytes(b"x")
    heard: list[tuple[bytes, int]] = []
    alone: list[str] = []
    call = daemon.call

    def counted(command: str, **parameters: object) -> dict[str, object]:
        if command == "operations/hashsumfile":
            alone.append(str(parameters["remote"]))
        return call(command, **parameters)

    monkeypatch.setattr(daemon, "call", counted)
    hashing = RcloneHashing(daemon, "far:", os.fsencode(tmp_path), download=download)
    read = hashing.digests(b"run", asked, 1 << 30, lambda path, size: heard.append((path, size)))
    assert read.found == {name: hashlib.sha256(b"content of " + name).hexdigest() for name in names}
    assert sorted(heard) == sorted((name, asked[name]) for name in names)
    assert sorted(alone) == ["run/gone", "run/returned\rcarriage", "run/two\nlines"]


def test_a_server_that_misses_a_file_for_a_moment_is_asked_again_before_a_move_fails(
    tmp_path: Path, daemon: RcloneDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("here", "too"):
        (tmp_path / name).write_bytes(b"x")
    call, missed = daemon.call, 0

    def missing(command: str, **parameters: object) -> dict[str, object]:
        nonlocal missed
        if command == "operations/movefile" and parameters["srcRemote"] == "here" and missed < 3:
            missed += 1
            raise RcloneError(404, "object not found")
        return call(command, **parameters)

    monkeypatch.setattr(daemon, "call", missing)
    land_files(daemon, "far:", [WholeFile(b"here", b"there", 1)])
    assert missed == 3
    assert (tmp_path / "there").read_bytes() == b"x"
    with pytest.raises(TransferError, match="object not found") as refused:
        land_files(daemon, "far:", [WholeFile(b"gone", b"elsewhere", 1), WholeFile(b"too", b"there too", 1)])
    assert refused.value.paths == (b"gone",)
    with pytest.raises(TransferError, match="object not found") as refused:
        take_away(daemon, "far:", [(b"gone", b"elsewhere")])
    assert refused.value.paths == (b"gone",)
