from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.documentation.workplace import Workplace, workplace


@pytest.fixture(scope="package")
def place() -> Iterator[Workplace]:
    """One for all pages: no page needs what another leaves."""
    with workplace() as place:
        yield place
