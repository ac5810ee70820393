"""A sync engine that looks every second whether a full destination has room again."""

from __future__ import annotations

import sys
from datetime import timedelta

from libs.service_kit.identity import ServiceName
from libs.service_kit.run import run_service
from services.sync_engine.app import compose
from services.sync_engine.errors import as_labferry_error
from services.sync_engine.jobs import retry


def main() -> int:
    retry._FULL_PAUSES = (timedelta(seconds=1),) * len(retry._FULL_PAUSES)  # type: ignore[assignment]
    return run_service(ServiceName.SYNC_ENGINE, compose, as_labferry_error)


if __name__ == "__main__":
    sys.exit(main())
