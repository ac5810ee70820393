"""What the ends of rsync and ssh mean (exit codes of rsync 3.2 to 3.5; 255 is ssh's own)."""

from __future__ import annotations

from typing import Final

from services.sync_engine.transfer.tool_failures import KILLED, ended, ended_saying, said
from services.sync_engine.transfer.transport import FailureKind

ROOT_MISSING: Final = "labferry: the folder of the destination is not there"
LEADS_AWAY: Final = "labferry: a folder is something else at the destination"
FOLDER_MISSING: Final = "labferry: a folder that was sent is not at the destination"
NOT_OURS: Final = "labferry: the folder of this moving was removed, so nothing more is moved"

RSYNC_FAILURES: Final = (
    said(FailureKind.NETWORK, ROOT_MISSING),
    said(FailureKind.NETWORK, NOT_OURS),
    said(FailureKind.DESTINATION_FILE_DIFFERS, LEADS_AWAY),
    said(FailureKind.TOOL_FAILED, FOLDER_MISSING),
    said(FailureKind.CONFIGURATION, r"host key verification failed|host identification has changed|host key is known"),
    # What ssh says it tried. The kernel's own words end in a number.
    said(FailureKind.AUTHENTICATION, r"permission denied \([a-z]"),
    said(FailureKind.DESTINATION_FULL, r"no space left on device|disk quota exceeded"),
    said(FailureKind.NAME_NOT_POSSIBLE, r"file name too long"),
    # Of times and the like it says nothing of names.
    said(
        FailureKind.NAME_NOT_POSSIBLE,
        r"(mkstemp|rename|mkdir|symlink|cannot (create|move)) .*: invalid (argument|or incomplete multibyte)",
    ),
    said(
        FailureKind.SOURCE_CHANGED,
        r"file has vanished|\[sender\] (link_stat|change_dir) .*failed: no such file or directory",
    ),
    said(FailureKind.LOCAL_FILE_UNREADABLE, r"\[sender\] send_files failed to open .*: permission denied"),
    said(FailureKind.CONFIGURATION, r"read-only file system|permission denied|operation not permitted|file too large"),
    said(
        FailureKind.CONFIGURATION,
        r"command not found|: not found|failed to exec|is your shell clean|unknown option|unrecognized option",
    ),
    said(FailureKind.TOOL_FAILED, r"input/output error"),
    ended_saying(FailureKind.CONFIGURATION, 11, r"no such file or directory"),
    # A usage error, another protocol, a selection of files, a feature, a limit, or a tool that can't be run.
    ended(FailureKind.CONFIGURATION, 1, 2, 3, 4, 25, 126, 127),
    # A daemon that didn't begin, messages, pipes, processes or memory that failed, a remote shell that broke. What
    # either side says of the connection then is only what follows from that.
    ended(FailureKind.TOOL_FAILED, 5, 13, 14, 15, 16, 21, 22, 124, 125, *KILLED),
    said(
        FailureKind.NETWORK,
        r"connection (refused|reset|timed out|closed)|could not resolve|no route to host|unreachable"
        r"|stale file handle|host is down|endpoint is not connected",
    ),
    ended(FailureKind.SOURCE_CHANGED, 24),
    ended(FailureKind.TOOL_FAILED, 11),
    # The way between the two broke, or somebody ended one of them.
    ended(FailureKind.NETWORK, 10, 12, 19, 20, 23, 30, 35, 255),
)
