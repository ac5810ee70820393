"""The three places that keep values, each through the same suite."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from labferry.secrets.v1 import secrets_service_pb2 as pb
from tests.integration.secrets.running_openbao import running_openbao
from tests.integration.secrets.running_service import Lab, RunningService, running
from tests.integration.secrets.secret_service import session
from tests.integration.secrets.store_conformance import StoreConformance


class TestEncryptedFile(StoreConformance):
    backend = pb.BACKEND_ENCRYPTED_FILE

    @pytest.fixture
    async def service(self, lab: Lab) -> AsyncIterator[RunningService]:
        async with running(lab, "secrets") as service:
            yield service


class TestOsKeyring(StoreConformance):
    backend = pb.BACKEND_OS_KEYRING

    @pytest.fixture
    async def service(self, lab: Lab) -> AsyncIterator[RunningService]:
        lab.settings["secrets"]["backend"] = "auto"
        async with session(lab.folder / "home") as desktop:
            await desktop.start_daemon()
            async with running(lab, "secrets", environment=desktop.environment) as service:
                yield service


class TestOpenBao(StoreConformance):
    backend = pb.BACKEND_OPENBAO

    @pytest.fixture
    async def service(self, lab: Lab) -> AsyncIterator[RunningService]:
        async with running_openbao(lab.folder) as openbao:
            openbao.configure(lab)
            async with running(lab, "secrets") as service:
                yield service
