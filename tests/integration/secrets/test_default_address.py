"""Unless told otherwise the secrets service listens on a socket that nobody else can reach, and is found there."""

from __future__ import annotations

import stat

import pytest

from tests.e2e.terminal import Operator
from tests.integration.secrets.running_service import Lab, ServiceEndedError, running
from tests.integration.sync_engine.running_engine import Site


async def test_a_socket_in_its_state_folder(lab: Lab) -> None:
    del lab.settings["listen"]["secrets"]
    socket = lab.state_dir / "secrets" / "secrets.sock"
    async with running(lab, "secrets") as service:
        assert service.address == f"unix:{socket}"
        assert stat.S_IMODE(socket.stat().st_mode) == 0o600
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
        said = await Operator(Site(lab))("secret", "status", "-o", "json")
        assert (said.status, said.json["initialized"]) == (0, True), said


async def test_a_state_folder_too_deep_for_a_socket(lab: Lab) -> None:
    del lab.settings["listen"]["secrets"]
    lab.settings["state_dir"] = str(lab.folder / ("d" * 100))
    with pytest.raises(ServiceEndedError, match="107 bytes at most") as ended:
        async with running(lab, "secrets"):
            pass
    assert ended.value.status == 75
