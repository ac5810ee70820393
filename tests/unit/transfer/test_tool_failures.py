"""What the tools really say (`captured/<tool>-<what>.<exit status>.txt`), and what it means for a job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from services.sync_engine.transfer.rclone_failures import RCLONE_FAILURES
from services.sync_engine.transfer.rsync_failures import LEADS_AWAY, ROOT_MISSING, RSYNC_FAILURES
from services.sync_engine.transfer.tool_failures import scrubbed, tool_failure
from services.sync_engine.transfer.transport import FailureKind
from tests.unit.transfer.capture.all_scenes import SCENES

CAPTURED = Path(__file__).parent / "captured"
MEANINGS = {
    "rsync-usage": FailureKind.CONFIGURATION,
    "rsync-login-banner": FailureKind.CONFIGURATION,
    "rsync-selection": FailureKind.CONFIGURATION,
    "rsync-unsupported": FailureKind.CONFIGURATION,
    "rsync-no-such-module": FailureKind.TOOL_FAILED,
    "rsync-cut": FailureKind.NETWORK,
    "rsync-no-daemon": FailureKind.NETWORK,
    "rsync-disk-error": FailureKind.TOOL_FAILED,
    "rsync-file-too-large": FailureKind.CONFIGURATION,
    "rsync-full": FailureKind.DESTINATION_FULL,
    "rsync-full-here": FailureKind.DESTINATION_FULL,
    "rsync-name-too-long": FailureKind.NAME_NOT_POSSIBLE,
    "rsync-name-refused": FailureKind.NAME_NOT_POSSIBLE,
    "rsync-folder-name-refused": FailureKind.NAME_NOT_POSSIBLE,
    "rsync-no-such-folder": FailureKind.CONFIGURATION,
    "rsync-quota": FailureKind.DESTINATION_FULL,
    "rsync-changed-host-key": FailureKind.CONFIGURATION,
    "rsync-far-tool-missing": FailureKind.CONFIGURATION,
    "rsync-no-such-host": FailureKind.NETWORK,
    "rsync-receiver-killed": FailureKind.NETWORK,
    "rsync-refused": FailureKind.NETWORK,
    "rsync-unknown-host-key": FailureKind.CONFIGURATION,
    "rsync-wrong-key": FailureKind.AUTHENTICATION,
    "rsync-messages-lost": FailureKind.TOOL_FAILED,
    "rsync-no-pipe": FailureKind.TOOL_FAILED,
    "rsync-no-remote-shell": FailureKind.CONFIGURATION,
    "rsync-sibling-crashed": FailureKind.TOOL_FAILED,
    "rsync-sibling-killed": FailureKind.TOOL_FAILED,
    "rsync-sigusr1": FailureKind.NETWORK,
    "rsync-sigterm": FailureKind.NETWORK,
    "rsync-waitpid": FailureKind.TOOL_FAILED,
    "rsync-out-of-memory": FailureKind.TOOL_FAILED,
    "rsync-file-missing": FailureKind.SOURCE_CHANGED,
    "rsync-permission": FailureKind.CONFIGURATION,
    "rsync-read-only": FailureKind.CONFIGURATION,
    "rsync-source-missing": FailureKind.SOURCE_CHANGED,
    "rsync-times-not-settable": FailureKind.CONFIGURATION,
    "rsync-unreadable-source": FailureKind.LOCAL_FILE_UNREADABLE,
    "rsync-source-vanished": FailureKind.SOURCE_CHANGED,
    "rsync-delete-limit": FailureKind.CONFIGURATION,
    "rsync-far-tool-hangs": FailureKind.NETWORK,
    "rsync-stop-after": FailureKind.NETWORK,
    "rsync-daemon-says-nothing": FailureKind.NETWORK,
    "rsync-far-tool-took-too-long": FailureKind.TOOL_FAILED,
    "rsync-far-shell-broken": FailureKind.TOOL_FAILED,
    "rsync-far-tool-not-runnable": FailureKind.CONFIGURATION,
    "rsync-far-tool-missing-of-ssh": FailureKind.CONFIGURATION,
    "rsync-far-tool-killed": FailureKind.TOOL_FAILED,
    "rsync-changed-host-key-of-ssh": FailureKind.CONFIGURATION,
    "rsync-cut-of-ssh": FailureKind.NETWORK,
    "rsync-open-key": FailureKind.AUTHENTICATION,
    "rsync-refused-of-ssh": FailureKind.NETWORK,
    "rsync-wrong-key-of-ssh": FailureKind.AUTHENTICATION,
    "rsync-killed": FailureKind.TOOL_FAILED,
    "rclone-a-file-in-the-way": FailureKind.TOOL_FAILED,
    "rclone-changed-host-key": FailureKind.CONFIGURATION,
    "rclone-differences": FailureKind.HASH_MISMATCH,
    "rclone-disk-error": FailureKind.TOOL_FAILED,
    "rclone-encrypted-configuration": FailureKind.CONFIGURATION,
    "rclone-full": FailureKind.DESTINATION_FULL,
    "rclone-smb-full": FailureKind.DESTINATION_FULL,
    "rclone-sftp-full": FailureKind.DESTINATION_FULL,
    "rclone-no-such-host": FailureKind.NETWORK,
    "rclone-no-such-remote": FailureKind.CONFIGURATION,
    "rclone-permission": FailureKind.CONFIGURATION,
    "rclone-quota": FailureKind.DESTINATION_FULL,
    "rclone-read-only": FailureKind.CONFIGURATION,
    "rclone-refused": FailureKind.NETWORK,
    "rclone-s3-wrong-key": FailureKind.AUTHENTICATION,
    "rclone-smb-no-share": FailureKind.CONFIGURATION,
    "rclone-arrived-as-something-else": FailureKind.HASH_MISMATCH,
    "rclone-webdav-wrong-password": FailureKind.AUTHENTICATION,
    "rclone-wrong-configuration-password": FailureKind.AUTHENTICATION,
    "rclone-wrong-key": FailureKind.AUTHENTICATION,
    "rclone-wrong-password": FailureKind.AUTHENTICATION,
    "rclone-crashed": FailureKind.TOOL_FAILED,
    "rclone-usage": FailureKind.CONFIGURATION,
    "rclone-directory-missing": FailureKind.CONFIGURATION,
    "rclone-s3-no-bucket": FailureKind.CONFIGURATION,
    "rclone-s3-bucket-name": FailureKind.CONFIGURATION,
    "rclone-s3-full": FailureKind.DESTINATION_FULL,
    "rclone-s3-quota": FailureKind.DESTINATION_FULL,
    "rclone-webdav-full": FailureKind.DESTINATION_FULL,
    "rclone-object-missing": FailureKind.CONFIGURATION,
    "rclone-server-dies": FailureKind.NETWORK,
    "rclone-source-grows": FailureKind.SOURCE_CHANGED,
    "rclone-delete-limit": FailureKind.CONFIGURATION,
    "rclone-transfer-limit": FailureKind.NETWORK,
    "rclone-nothing-transferred": FailureKind.CONFIGURATION,
    "rclone-duration-limit": FailureKind.NETWORK,
    "rclone-killed": FailureKind.TOOL_FAILED,
}
"""Errors that no disk here gives when it is asked (EIO, EDQUOT, no pipe, no child) strace puts into real system calls;
everything else happens."""

RSYNC_ENDS = {
    *(1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15, 16, 19, 20, 21, 22, 23, 24, 25, 30, 35, 124, 125, 126, 127, 255),
    *(137, -9),
}
RCLONE_ENDS = {*range(1, 11), -9}


def _code(path: Path) -> int:
    return int(path.name.split(".")[1])


def test_every_captured_end_has_a_meaning_and_can_be_captured_anew() -> None:
    assert {path.name.split(".")[0] for path in CAPTURED.iterdir()} == MEANINGS.keys() == SCENES.keys()


@pytest.mark.parametrize(("tool", "ends"), [("rsync", RSYNC_ENDS), ("rclone", RCLONE_ENDS)])
def test_every_end_that_a_tool_knows_was_captured(tool: str, ends: set[int]) -> None:
    assert {_code(path) for path in CAPTURED.glob(f"{tool}-*")} == ends


@pytest.mark.parametrize("name", MEANINGS)
def test_what_a_tool_said(name: str) -> None:
    (path,) = CAPTURED.glob(f"{name}.*.txt")
    code, words = _code(path), path.read_text(encoding="utf-8")
    table = RSYNC_FAILURES if name.startswith("rsync") else RCLONE_FAILURES
    failure = tool_failure(table, "sending", code, words)
    assert failure.kind is MEANINGS[name]
    spoken = "\n".join(json.loads(line)["msg"] if line.startswith("{") else line for line in words.splitlines())
    if len(spoken) < 2000:
        assert failure.message == f"sending (exit status {code}): {spoken.strip() or 'it gave no reason'}"
    else:
        assert failure.message.endswith(spoken.strip()[-500:])


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        *((code, FailureKind.CONFIGURATION) for code in (1, 2, 3, 4, 25, 126, 127)),
        (24, FailureKind.SOURCE_CHANGED),
        *((code, FailureKind.NETWORK) for code in (10, 12, 19, 20, 23, 30, 35, 255)),
        *((code, FailureKind.TOOL_FAILED) for code in (5, 11, 13, 14, 15, 16, 21, 22, 124, 125)),
        *((code, FailureKind.TOOL_FAILED) for code in (-11, -9, 129, 137, 139, 143)),
    ],
)
def test_rsync_that_says_nothing(code: int, kind: FailureKind) -> None:
    assert tool_failure(RSYNC_FAILURES, "sending", code, "").kind is kind


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        *((code, FailureKind.CONFIGURATION) for code in (2, 3, 4, 7, 9)),
        *((code, FailureKind.NETWORK) for code in (5, 8, 10)),
        (6, FailureKind.SOURCE_CHANGED),
        *((code, FailureKind.TOOL_FAILED) for code in (1, -9, 137)),
        # Answers of its remote control come without a status.
        (None, FailureKind.NETWORK),
    ],
)
def test_rclone_that_says_nothing(code: int | None, kind: FailureKind) -> None:
    assert tool_failure(RCLONE_FAILURES, "sending", code, "").kind is kind


@pytest.mark.parametrize(
    ("words", "paths"),
    [
        ('Put "http://h/x/tile-507.tif": dial tcp 1.2.3.4:80: connect: connection refused', ()),
        ('Put "http://h/x/423 Locked.tif": dial tcp 1.2.3.4:80: connect: connection refused', ()),
        ('Put "http://h/x/no space left.tif": dial tcp 1.2.3.4:80: connect: connection refused', ()),
        ("open /nas/p/read-only file system.tif: broken pipe", (b"p/read-only file system.tif",)),
        ("open /nas/p/permission denied: broken pipe", (b"q/permission denied",)),
    ],
)
def test_a_name_says_nothing_of_what_went_wrong(words: str, paths: tuple[bytes, ...]) -> None:
    failure = tool_failure(RCLONE_FAILURES, "sending", None, words, paths)
    assert failure.kind is FailureKind.NETWORK
    assert words in failure.message


@pytest.mark.parametrize(
    ("code", "words", "kind"),
    [
        (23, 'rsync: [receiver] mkstemp "/x/.a.Xyz" failed: Permission denied (13)', FailureKind.CONFIGURATION),
        (11, 'rsync: [receiver] write failed on "/x/a": File too large (27)', FailureKind.CONFIGURATION),
        (255, "lab@nas: Permission denied (publickey,password).", FailureKind.AUTHENTICATION),
        (
            23,
            'rsync: [sender] change_dir "/x/permission denied (publickey)" failed: Stale file handle (116)',
            FailureKind.NETWORK,
        ),
    ],
)
def test_the_kernels_words_are_no_refusal_of_ssh(code: int, words: str, kind: FailureKind) -> None:
    assert tool_failure(RSYNC_FAILURES, "sending", code, words).kind is kind


def test_what_our_own_scripts_say() -> None:
    assert tool_failure(RSYNC_FAILURES, "listing", 123, f"{ROOT_MISSING}: /x").kind is FailureKind.NETWORK
    away = tool_failure(RSYNC_FAILURES, "listing", 123, f"{LEADS_AWAY}: p")
    assert away.kind is FailureKind.DESTINATION_FILE_DIFFERS


def test_what_a_killed_tool_had_said_before_is_not_why_it_ended() -> None:
    for table in (RSYNC_FAILURES, RCLONE_FAILURES):
        killed = tool_failure(table, "sending", -9, "trying a name: file name too long")
        assert killed.kind is FailureKind.TOOL_FAILED


@pytest.mark.parametrize(
    "words",
    [
        'failed to create :sftp,host=x,pass="hunter2 x",user=y: refused',
        ":sftp,host=x,pass=hunter2,user=y: refused",
        "webdav://u:hunter2@host/ refused",
        "secret_access_key = hunter2",
        "Authorization: Bearer hunter2",
        '{"access_token": "hunter2"}',
        'Put "https://lab.example/run?X-Amz-Credential=hunter2&X-Amz-Signature=hunter2": refused',
        "got a redirect to https://lab.example/a?sig=hunter2",
    ],
)
def test_no_credential_is_told(words: str) -> None:
    assert "hunter2" not in scrubbed(words)


def test_many_words_are_cut_to_the_last() -> None:
    assert scrubbed("a" * 5000 + "end").endswith("end")
    assert len(scrubbed("a" * 5000)) < 2100
