"""What rclone's refusals mean. Its exit codes are those of 1.69 and later; calls to its remote control have words
alone."""

from __future__ import annotations

from typing import Final

from services.sync_engine.transfer.tool_failures import ended, said
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
        r"no space left|quota exceeded|insufficient storage|disk (is )?full|remaining disk space",
    ),
    said(FailureKind.SOURCE_CHANGED, r"source file is being updated|can't copy - source"),
    said(FailureKind.NAME_NOT_POSSIBLE, r"file name too long|name is invalid|object name invalid|bad encoding"),
    said(
        FailureKind.CONFIGURATION,
        r"permission denied|access (is )?denied|accessdenied|read-only file system|file too large|nosuchbucket"
        r"|share name cannot be found",
    ),
    said(FailureKind.HASH_MISMATCH, r"corrupted on transfer"),
    ended(FailureKind.CONFIGURATION, 2, 7),
    # 1 uncategorised, 3 and 4 not found, 5 worth retrying, 6 not, 8 and 10 limits, 9 nothing transferred.
    ended(FailureKind.NETWORK, 1, 3, 4, 5, 6, 8, 9, 10),
)
