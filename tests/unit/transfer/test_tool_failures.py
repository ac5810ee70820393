"""What the tools really say (`captured/<tool>-<what>.<exit status>.txt`), and what it means for a job."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.sync_engine.transfer.rclone_failures import RCLONE_FAILURES
from services.sync_engine.transfer.rsync_failures import LEADS_AWAY, ROOT_MISSING, RSYNC_FAILURES
from services.sync_engine.transfer.tool_failures import scrubbed, tool_failure
from services.sync_engine.transfer.transport import FailureKind

CAPTURED = Path(__file__).parent / "captured"
MEANINGS = {
    "rsync-changed-host-key": FailureKind.CONFIGURATION,
    "rsync-far-tool-missing": FailureKind.CONFIGURATION,
    "rsync-full": FailureKind.NETWORK,
    "rsync-no-such-host": FailureKind.NETWORK,
    "rsync-open-key": FailureKind.AUTHENTICATION,
    "rsync-read-only": FailureKind.CONFIGURATION,
    "rsync-refused": FailureKind.NETWORK,
    "rsync-source-missing": FailureKind.NETWORK,
    "rsync-unknown-host-key": FailureKind.CONFIGURATION,
    "rsync-usage": FailureKind.CONFIGURATION,
    "rsync-wrong-key": FailureKind.AUTHENTICATION,
    "rclone-changed-host-key": FailureKind.CONFIGURATION,
    "rclone-directory-missing": FailureKind.NETWORK,
    "rclone-encrypted-configuration": FailureKind.CONFIGURATION,
    "rclone-full": FailureKind.DESTINATION_FULL,
    "rclone-no-such-remote": FailureKind.CONFIGURATION,
    "rclone-read-only": FailureKind.CONFIGURATION,
    "rclone-refused": FailureKind.NETWORK,
    "rclone-s3-no-bucket": FailureKind.NETWORK,
    "rclone-s3-wrong-key": FailureKind.AUTHENTICATION,
    "rclone-smb-no-share": FailureKind.CONFIGURATION,
    "rclone-source-changes": FailureKind.HASH_MISMATCH,
    "rclone-usage": FailureKind.CONFIGURATION,
    "rclone-webdav-wrong-password": FailureKind.AUTHENTICATION,
    "rclone-wrong-configuration-password": FailureKind.AUTHENTICATION,
    "rclone-wrong-key": FailureKind.AUTHENTICATION,
    "rclone-wrong-password": FailureKind.AUTHENTICATION,
}


def test_every_captured_end_has_a_meaning() -> None:
    assert {path.name.split(".")[0] for path in CAPTURED.iterdir()} == MEANINGS.keys()


@pytest.mark.parametrize("name", MEANINGS)
def test_what_a_tool_said(name: str) -> None:
    (path,) = CAPTURED.glob(f"{name}.*.txt")
    code = int(path.name.split(".")[1])
    table = RSYNC_FAILURES if name.startswith("rsync") else RCLONE_FAILURES
    failure = tool_failure(table, "sending", code, path.read_text(encoding="utf-8"))
    assert failure.kind is MEANINGS[name]
    assert failure.message.startswith(f"sending (exit status {code}): ")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        *((code, FailureKind.CONFIGURATION) for code in (1, 2, 3, 4, 25, 126, 127)),
        (24, FailureKind.SOURCE_CHANGED),
        *(
            (code, FailureKind.NETWORK)
            for code in (5, 10, 11, 12, 13, 14, 15, 16, 19, 20, 21, 22, 23, 30, 35, 124, 125)
        ),
        (255, FailureKind.NETWORK),
        (137, FailureKind.NETWORK),
    ],
)
def test_rsync_that_says_nothing(code: int, kind: FailureKind) -> None:
    assert tool_failure(RSYNC_FAILURES, "sending", code, "").kind is kind


@pytest.mark.parametrize(
    ("code", "kind"), [(2, FailureKind.CONFIGURATION), (7, FailureKind.CONFIGURATION), (5, FailureKind.NETWORK)]
)
def test_rclone_that_says_nothing(code: int, kind: FailureKind) -> None:
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


@pytest.mark.parametrize(
    "words",
    [
        'failed to create :sftp,host=x,pass="hunter2 x",user=y: refused',
        ":sftp,host=x,pass=hunter2,user=y: refused",
        "webdav://u:hunter2@host/ refused",
        "secret_access_key = hunter2",
        "Authorization: Bearer hunter2",
        '{"access_token": "hunter2"}',
    ],
)
def test_no_credential_is_told(words: str) -> None:
    assert "hunter2" not in scrubbed(words)


def test_many_words_are_cut_to_the_last() -> None:
    assert scrubbed("a" * 5000 + "end").endswith("end")
    assert len(scrubbed("a" * 5000)) < 2100
