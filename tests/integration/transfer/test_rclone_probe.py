"""What the probe of a destination behind rclone takes a server's hesitation for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from services.sync_engine.transfer.bandwidth import UNLIMITED, SharedBandwidth
from services.sync_engine.transfer.rclone_daemon import RcloneDaemon, RcloneError
from services.sync_engine.transfer.rclone_probe import TriedNames, try_names
from services.sync_engine.transfer.rclone_start import open_rclone
from services.sync_engine.transfer.transfer_control import TransferControl

NOTHING = re.compile("(?!)")


def tried(folder: Path, monkeypatch: pytest.MonkeyPatch, *answers: str) -> TriedNames:
    """What is found out where one asking after another for a name in its other case is answered so."""
    left = list(answers)
    call = RcloneDaemon.call

    def asked(self: RcloneDaemon, command: str, **parameters: Any) -> Any:
        if command != "operations/stat" or not str(parameters["remote"]).endswith("cASE") or not left:
            return call(self, command, **parameters)
        answer = left.pop(0)
        if answer == "error":
            raise RcloneError(503, "Slow Down")
        remote = str(parameters["remote"]).replace("cASE", "Case") if answer == "there" else parameters["remote"]
        return call(self, command, **{**parameters, "remote": remote})

    monkeypatch.setattr(RcloneDaemon, "call", asked)
    config = folder / "rclone.conf"
    config.write_text(f"[far]\ntype = alias\nremote = {folder}\n")
    with open_rclone(config, TransferControl(), SharedBandwidth(UNLIMITED)) as daemon:
        return try_names(daemon, "far:", b"tried", NOTHING)


def test_a_plain_folder_keeps_names_in_either_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tried(tmp_path, monkeypatch).case_sensitive


@pytest.mark.parametrize("answers", [("there",), ("nothing", "there"), ("nothing", "nothing", "there"), ("error",)])
def test_two_names_that_may_be_one_are_taken_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: tuple[str, ...]
) -> None:
    assert not tried(tmp_path, monkeypatch, *answers).case_sensitive
