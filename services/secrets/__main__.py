"""python -m services.secrets --config FILE"""

from __future__ import annotations

import sys

from libs.service_kit.first_imports import first_imports

with first_imports():
    from libs.event_log.errors import as_labferry_error
    from libs.service_kit.identity import ServiceName
    from libs.service_kit.run import run_service
    from services.secrets.app import compose

if __name__ == "__main__":
    sys.exit(run_service(ServiceName.SECRETS, compose, as_labferry_error))
