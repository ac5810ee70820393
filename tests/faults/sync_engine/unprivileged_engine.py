"""A sync engine that runs as a user of its own, in a group with whoever owns the run's files.

All of it is imported before root's rights are given up: another user may not be able to reach the checkout.
"""

from __future__ import annotations

import os
import sys

from libs.service_kit.identity import ServiceName
from libs.service_kit.run import run_service
from services.sync_engine.app import compose
from services.sync_engine.errors import as_labferry_error

ENGINE, INSTRUMENT, GROUP = 4100, 4200, 4300


def main() -> None:
    os.setgroups([])
    os.setresgid(GROUP, GROUP, GROUP)
    os.setresuid(ENGINE, ENGINE, ENGINE)
    sys.exit(run_service(ServiceName.SYNC_ENGINE, compose, as_labferry_error))


if __name__ == "__main__":
    main()
