"""Where the `labferry` command begins and ends."""

from __future__ import annotations

import errno
import os
import sys

from libs.service_kit.first_imports import first_imports

_INTERRUPTED = 130
_NOT_WRITTEN = 4


def main() -> None:
    """As any program ends: told to, or by what its output can't take."""
    try:
        # Imports take longer than many a command.
        with first_imports():
            from cli.main import app
        try:
            app()
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            raise
        # What is left in the buffer would fail once more when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.stderr.write(f"the output could not be written: {error.strerror}\n")
        sys.exit(_NOT_WRITTEN)
