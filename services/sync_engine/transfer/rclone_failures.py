"""What rclone's refusals mean. Its exit codes are those of 1.69 and later; calls to its remote control have words
alone."""

from __future__ import annotations

from typing import Final

from services.sync_engine.transfer.tool_failures import KILLED, ended, said
from services.sync_engine.transfer.transport import FailureKind

RCLONE_FAILURES: Final = (
    said(FailureKind.CONFIGURATION, r"knownhosts: key|host key|didn't find section|unknown flag|unknown command"),
    said(FailureKind.AUTHENTICATION, r"derived password, unable to decrypt configuration"),
    said(FailureKind.CONFIGURATION, r"failed to load config"),
    said(
        FailureKind.AUTHENTICATION,
        r"unable to authenticate|401 unauthorized|403 forbidden|invalidaccesskeyid|signaturedoesnotmatch"
        r"|logon is invalid",
    ),
    said(
        FailureKind.DESTINATION_FULL,
        r"no space left|quota ?exceeded|insufficient storage|statuscode: 507\b|disk (is |was )?full"
        r"|remaining disk space"
        # SFTP has no word for a full disk, a quota or a file that is too large there.
        r"|update readfrom failed: sftp: \"\" \(ssh_fx_failure\)",
    ),
    said(FailureKind.SOURCE_CHANGED, r"source file is being updated|can't copy - source"),
    said(FailureKind.NAME_NOT_POSSIBLE, r"file name too long|name is invalid|object name invalid|bad encoding"),
    said(
        FailureKind.CONFIGURATION,
        r"permission denied|access (is )?denied|accessdenied|read-only file system|file too large|nosuchbucket"
        r"|invalidbucketname|share name cannot be found",
    ),
    said(
        FailureKind.HASH_MISMATCH,
        r"corrupted on transfer|\b(sizes|hashes|md5|sha-?1|sha-?256) differ|differences found",
    ),
    # The second is how a program in Go crashes, with the status of a wrong call.
    said(FailureKind.TOOL_FAILED, r"input/output error|^(panic|runtime error): |^(goroutine \d+|runtime stack)\b.*:$"),
    # A wrong call, a directory or file that is not there, a fatal error, nothing to transfer. What is not there is the
    # destination's: files of a run are opened here and given to rclone open, so none of them is missing to it.
    ended(FailureKind.CONFIGURATION, 2, 3, 4, 7, 9),
    said(
        FailureKind.NETWORK,
        r"connection (refused|reset|timed out|lost)|broken pipe|no such host|no route to host|unreachable|host is down"
        r"|(i/o|handshake) timeout|timeout awaiting|deadline exceeded|server misbehaving|temporary failure"
        r"|unexpected eof|: eof\b|closed network connection"
        r"|ssh_fx_failure|too many requests|internal server error|bad gateway|service unavailable",
    ),
    # What isn't worth another try at once.
    ended(FailureKind.SOURCE_CHANGED, 6),
    # 1 is whatever has no status of its own.
    ended(FailureKind.TOOL_FAILED, 1, *KILLED),
    # 5 is worth another try; 8 and 10 are limits.
    ended(FailureKind.NETWORK, 5, 8, 10),
)
