"""`python -m services.sync_engine --config FILE`."""

import sys

from libs.service_kit.first_imports import first_imports

with first_imports():
    from libs.service_kit.identity import ServiceName
    from libs.service_kit.run import run_service
    from services.sync_engine.app import compose
    from services.sync_engine.errors import as_labferry_error

if __name__ == "__main__":
    sys.exit(run_service(ServiceName.SYNC_ENGINE, compose, as_labferry_error))
