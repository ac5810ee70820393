"""What the far end is told to do by scripts, run here."""

from __future__ import annotations

import os
import subprocess
import unicodedata
from pathlib import Path

from services.sync_engine.transfer import far_scripts as scripts
from services.sync_engine.transfer.rsync_failures import RSYNC_FAILURES
from services.sync_engine.transfer.ssh_session import open_ssh
from services.sync_engine.transfer.tool_failures import tool_failure
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import FailureKind
from tests.faults.sync_engine.test_destinations import mounted_tmpfs
from tests.integration.transfer.far_servers import running_sshd


def test_a_folder_that_is_not_there_is_no_folder_that_keeps_its_time(tmp_path: Path) -> None:
    (tmp_path / "run" / "there").mkdir(parents=True)
    dated = ["1700000000.5", "there", "1700000000.5", "forgotten", "1700000000.5", "never come to"]
    done = subprocess.run(
        ["sh", "-c", scripts.DATE_FOLDERS, "sh", str(tmp_path), "run", *dated], capture_output=True, text=True
    )
    failure = tool_failure(RSYNC_FAILURES, "dating folders", done.returncode, done.stderr)
    assert failure.kind is FailureKind.TOOL_FAILED
    assert "not at the destination: forgotten" in failure.message
    assert (tmp_path / "run" / "there").stat().st_mtime == 1_700_000_000.5


def probe(destination: Path) -> subprocess.CompletedProcess[bytes]:
    forms = [unicodedata.normalize(form, "e\u0301").encode() for form in ("NFC", "NFD")]
    command = ["sh", "-c", scripts.PROBE, "sh", os.fsencode(destination), b"tried", *forms, b"\xff\xfe", b"x", b"y"]
    return subprocess.run(command, capture_output=True, env={**os.environ, "LC_ALL": "C"})


def test_a_filesystem_that_refuses_names_is_told_by_what_it_takes(tmp_path: Path) -> None:
    disk, there = tmp_path / "disk", tmp_path / "there"
    with disk.open("wb") as file:
        file.truncate(8 << 20)
    there.mkdir()
    subprocess.run(["mkntfs", "--fast", "--force", "--quiet", str(disk)], check=True, capture_output=True)
    subprocess.run(["mount", "-t", "ntfs-3g", "-o", "loop", str(disk), str(there)], check=True)
    try:
        done = probe(there)
        assert (done.returncode, done.stderr) == (0, b"")
        assert {b"symlinks", b"hard_links"} <= set(done.stdout.split())
        assert b"any_bytes" not in done.stdout.split()
        assert not (there / "tried").exists()
    finally:
        subprocess.run(["umount", str(there)], check=True)


def test_a_disk_that_is_full_says_so_and_nothing_of_names(tmp_path: Path) -> None:
    outcomes = set()
    for inodes in (*range(1, 12), 20, 40, 80):
        with mounted_tmpfs(tmp_path, f"nr_inodes={inodes}"):
            done = probe(tmp_path)
            outcomes.add(done.returncode)
            if done.returncode == 0:
                assert {b"any_bytes", b"symlinks", b"hard_links"} <= set(done.stdout.split())
            else:
                failure = tool_failure(
                    RSYNC_FAILURES, "trying names", done.returncode, done.stderr.decode(errors="replace")
                )
                assert failure.kind is FailureKind.DESTINATION_FULL
    assert len(outcomes) > 1


def test_the_far_end_speaks_the_language_whose_words_are_known(tmp_path: Path) -> None:
    with (
        running_sshd(tmp_path / "sshd", "SetEnv LC_ALL=de_DE.UTF-8") as sshd,
        open_ssh(sshd.access, TransferControl(), None) as session,
    ):
        assert session.must("asking", 'echo "$LC_ALL"', [b""]) == b"C\n"
