from __future__ import annotations

from tests.integration.lims_gateway.conftest import site

__all__ = ["site"]
