"""What the ends of rsync and ssh mean (exit codes of rsync 3.2 to 3.5; 255 is ssh's own)."""

from __future__ import annotations

from typing import Final

from services.sync_engine.transfer.tool_failures import ended, said
from services.sync_engine.transfer.transport import FailureKind

ROOT_MISSING: Final = "labferry: the folder of the destination is not there"
LEADS_AWAY: Final = "labferry: a folder is something else at the destination"

RSYNC_FAILURES: Final = (
    said(FailureKind.NETWORK, ROOT_MISSING),
    said(FailureKind.DESTINATION_FILE_DIFFERS, LEADS_AWAY),
    said(FailureKind.CONFIGURATION, r"host key verification failed|host identification has changed|host key is known"),
    # What ssh says it tried. The kernel's own words end in a number.
    said(FailureKind.AUTHENTICATION, r"permission denied \([a-z]"),
    said(FailureKind.DESTINATION_FULL, r"no space left on device|disk quota exceeded"),
    said(FailureKind.NAME_NOT_POSSIBLE, r"file name too long"),
    said(FailureKind.SOURCE_CHANGED, r"file has vanished"),
    said(FailureKind.CONFIGURATION, r"read-only file system|permission denied|operation not permitted|file too large"),
    said(
        FailureKind.CONFIGURATION,
        r"command not found|: not found|is your shell clean|unknown option|unrecognized option",
    ),
    said(
        FailureKind.NETWORK,
        r"connection (refused|reset|timed out|closed)|broken pipe|could not resolve|no route to host|unreachable",
    ),
    # A usage error, another protocol, a selection of files, a feature, a limit, or a tool that can't be run.
    ended(FailureKind.CONFIGURATION, 1, 2, 3, 4, 25, 126, 127),
    ended(FailureKind.SOURCE_CHANGED, 24),
    # The way between the two broke, or one of the two died.
    ended(FailureKind.NETWORK, 5, 10, 11, 12, 13, 14, 15, 16, 19, 20, 21, 22, 23, 30, 35, 124, 125, 255),
)
