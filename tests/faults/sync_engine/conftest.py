from tests.integration.sync_engine.conftest import engine, site

__all__ = ["engine", "site"]
