"""The three services as real processes of one throwaway lab, with an identity for every role."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2

from libs.service_kit.channel import open_channel, read_token
from libs.service_kit.identity import Role
from libs.service_kit.identity_registry import IdentityRegistry
from tests.integration.secrets.running_service import RunningService, start
from tests.integration.sync_engine.running_engine import Site, new_site

SERVICES = ("secrets", "lims_gateway", "sync_engine")
NOBODY, REVOKED = "nobody", "revoked"
PEOPLE = (Role.VIEWER, Role.OPERATOR, Role.ADMIN)


@dataclass(frozen=True)
class WholeLab:
    """`services` by name."""

    site: Site
    services: Mapping[str, RunningService]
    resources: AsyncExitStack

    def token(self, who: str) -> str:
        """`who`: a role, or "revoked"."""
        if who.startswith("service:"):
            return self.site.lab.token(who.removeprefix("service:"))
        return read_token(_token_file(self.site, who))

    async def channel(self, service: str, who: str) -> grpc.aio.Channel:
        """`who`: a role, "revoked", or "nobody"."""
        address = self.site.lab.address(service)
        if who == NOBODY:
            return await self.resources.enter_async_context(grpc.aio.insecure_channel(address))
        token = self.token(who)
        return await self.resources.enter_async_context(open_channel(address, lambda: token))

    async def assert_serving(self) -> None:
        """Each of them: alive, and healthy by its own word."""
        for service in self.services.values():
            assert service.process.returncode is None, service.name
            assert await service.health() == health_pb2.HealthCheckResponse.SERVING, service.name

    def memory(self, service: str) -> int:
        """Bytes that the process has in memory now."""
        return resident_bytes(self.services[service].process.pid)


def resident_bytes(process: int) -> int:
    for line in Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {process} has no memory")


def _token_file(site: Site, who: str) -> Path:
    return site.lab.folder / f"{who}.token"


async def _end(service: RunningService) -> None:
    await service.resources.aclose()
    if service.process.returncode is None:
        await service.stop()


@asynccontextmanager
async def whole_lab() -> AsyncIterator[WholeLab]:
    """Each person's role alone, so that nothing is allowed by another; a LIMS is configured that nobody answers for."""
    async with new_site() as site, AsyncExitStack() as resources:
        site.equip()
        lab = site.lab
        lab.write_passphrase()
        lab.settings["secrets"] = {"backend": "encrypted_file", "passphrase_file": str(lab.passphrase_file)}
        lab.settings["lims"] = {"endpoint": "http://127.0.0.1:9/api/v1", "email": "ops@lab.example"}
        staging = lab.folder / "staging"
        staging.mkdir()
        lab.settings["orchestrator"] = {"staging_root": str(staging), "settle_seconds": 30}
        # Floods are of TCP connections; nobody here calls the engine by its configured address.
        lab.settings["listen"]["sync_engine"] = "127.0.0.1:0"
        started = await asyncio.gather(*(start(lab, name) for name in SERVICES))
        services = {service.name: service for service in started}
        for service in started:
            resources.push_async_callback(_end, service)
        lab.settings["listen"]["sync_engine"] = services["sync_engine"].address
        registry = IdentityRegistry(lab.state_dir)
        for role in PEOPLE:
            registry.create(f"{role.value}-alone", [role], _token_file(site, role.value), None)
        registry.create("left-us", list(PEOPLE), _token_file(site, REVOKED), None)
        registry.revoke("left-us")
        yield WholeLab(site, services, resources)
