"""What the far end is told to do by scripts, run here."""

from __future__ import annotations

import subprocess
from pathlib import Path

from services.sync_engine.transfer import far_scripts as scripts
from services.sync_engine.transfer.rsync_failures import RSYNC_FAILURES
from services.sync_engine.transfer.tool_failures import tool_failure
from services.sync_engine.transfer.transport import FailureKind


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
