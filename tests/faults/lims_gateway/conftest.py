from __future__ import annotations

from tests.integration.lims_gateway.conftest import new_site, shared_site, site

__all__ = ["new_site", "shared_site", "site"]
