"""A run, an empty destination and a job between them."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.sync_engine.transfer.mounted import MountedTransport
from tests.integration.transfer.carrying import Carrying


@pytest.fixture
def carrying(tmp_path: Path) -> Carrying:
    source, destination = tmp_path / "run", tmp_path / "nas"
    source.mkdir()
    destination.mkdir()
    return Carrying(source, destination, MountedTransport(destination))
