"""Two values that nobody else could know are stored and used; then everything that the services leave is searched."""

from __future__ import annotations

import secrets as randomness
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_reflection.v1alpha import reflection_pb2

from labferry.lims.v1 import lims_service_pb2 as lims_pb
from labferry.secrets.v1 import secrets_service_pb2 as pb
from tests.integration.lims_gateway.running_lims import EMAIL, RunningLims, running_lims
from tests.integration.secrets.running_service import PASSPHRASE, RunningService, running
from tests.integration.service_kit.test_metrics import address_of_metrics
from tests.integration.sync_engine.running_engine import EQUIPMENT, Site, new_site, running_engine
from tests.integration.sync_engine.test_encrypted_rclone import equip_encrypted

SERVICES = ("secrets", "lims_gateway", "sync_engine")


@dataclass(frozen=True)
class Workstation:
    """All three services and a LIMS, with the values `canaries`: the LIMS's password and the storage's."""

    site: Site
    services: Mapping[str, RunningService]
    lims: RunningLims
    canaries: tuple[str, str]


@pytest.fixture
async def workstation() -> AsyncIterator[Workstation]:
    canaries = (randomness.token_hex(20), randomness.token_hex(20))
    async with AsyncExitStack() as stack:
        site = await stack.enter_async_context(new_site())
        lab = site.lab
        lims = await stack.enter_async_context(running_lims(lab.folder, password=canaries[0]))
        equip_encrypted(site, canaries[1])
        lab.write_passphrase()
        lab.settings["secrets"]["passphrase_file"] = str(lab.passphrase_file)
        lab.settings["lims"] = {"endpoint": f"{lims.address}/api/v1", "email": EMAIL}
        lab.settings["metrics"] = {"listen": dict.fromkeys(SERVICES, "127.0.0.1:0")}
        services = {name: await stack.enter_async_context(running(lab, name)) for name in SERVICES[:2]}
        engine = await stack.enter_async_context(running_engine(site))
        services["sync_engine"] = engine.service
        await store_and_use(services, lims, canaries)
        await engine.until_sealed((await engine.enqueue(site.make_run())).job.job_id)
        yield Workstation(site, services, lims, canaries)


async def store_and_use(services: Mapping[str, RunningService], lims: RunningLims, canaries: Sequence[str]) -> None:
    """The gateway logs in with one; the other is to open rclone's configuration, and the engine's identity reads it."""
    operator = await services["secrets"].secrets()
    await operator.SetSecret(pb.SetSecretRequest(username="lims", value=canaries[0]))
    await operator.SetSecret(pb.SetSecretRequest(username=f"nas:{EQUIPMENT}", value=canaries[1]))
    await (await services["lims_gateway"].lims()).RefreshProjects(lims_pb.RefreshProjectsRequest())
    assert await lims.logins() == 1
    engine = await services["secrets"].secrets("sync_engine")
    assert (await engine.GetSecret(pb.GetSecretRequest(username=f"nas:{EQUIPMENT}"))).value == canaries[1]


async def refusals(workstation: Workstation) -> bytes:
    """All that callers are told whose calls carry a canary and are refused."""
    stub = await workstation.services["secrets"].secrets()
    gateway = await workstation.services["secrets"].secrets("lims_gateway")
    told = b""
    for canary in workstation.canaries:
        for call in (
            stub.SetSecret(pb.SetSecretRequest(service="other", username="lims", value=canary)),
            stub.SetSecret(pb.SetSecretRequest(username="", value=canary)),
            stub.SetSecret(pb.SetSecretRequest(username="x", value=canary * 2000)),
            gateway.SetSecret(pb.SetSecretRequest(username="lims", value=canary)),
            stub.GetSecret(pb.GetSecretRequest(username="lims")),
            gateway.GetSecret(pb.GetSecretRequest(username=f"nas:{EQUIPMENT}")),
            stub.Initialize(pb.InitializeRequest(passphrase=canary)),
            stub.ChangePassphrase(pb.ChangePassphraseRequest(old=canary, new=canary * 2000)),
            stub.Unseal(pb.UnsealRequest(passphrase=canary)),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            error = caught.value
            told += repr((error.details(), error.trailing_metadata(), error.debug_error_string())).encode()
    return told


async def reflected(service: RunningService) -> bytes:
    """What reflection answers about each service and its file."""
    channel = await service.channel(None)
    call: Any = channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    (listed,) = [answer async for answer in call(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))]
    names = [found.name for found in listed.list_services_response.service]
    asked = [reflection_pb2.ServerReflectionRequest(file_containing_symbol=name) for name in names]
    answers = [answer async for answer in call(iter(asked))]
    assert len(answers) == len(names) > 2
    return b"".join(answer.SerializeToString() for answer in (listed, *answers))


async def everything_left(workstation: Workstation) -> dict[str, bytes]:
    """Place → what it holds: every file of the workstation, and what the running services say and show."""
    left: dict[str, bytes] = {"refusals": await refusals(workstation)}
    async with httpx.AsyncClient(trust_env=False) as client:
        for name, service in workstation.services.items():
            process = Path(f"/proc/{service.process.pid}")
            left |= {f"{name} {part}": (process / part).read_bytes() for part in ("cmdline", "environ")}
            left[f"{name} events"] = b"".join(event.SerializeToString() for event in await service.events())
            left[f"{name} reflection"] = await reflected(service)
            address = address_of_metrics(workstation.site.lab, name)
            left[f"{name} metrics"] = (await client.get(f"http://{address}/metrics")).content
    folder = workstation.site.lab.folder
    files = [file for file in folder.rglob("*") if file.is_file() and file != workstation.site.lab.passphrase_file]
    return left | {str(file.relative_to(folder)): file.read_bytes() for file in files}


def places_with(left: Mapping[str, bytes], values: Iterable[str]) -> list[str]:
    wanted = [value.encode(coding) for value in values for coding in ("utf-8", "utf-16-le")]
    return sorted(place for place, data in left.items() if any(value in data for value in wanted))


async def test_no_value_is_anywhere_and_a_leak_would_be_found(workstation: Workstation) -> None:
    secret = (*workstation.canaries, PASSPHRASE)
    left = await everything_left(workstation)
    for name in SERVICES:
        assert {f"{name}.log", f"state/{name}/events.sqlite3"} <= set(left)
        assert b"serving" in left[f"{name}.log"]
        assert b"labferry_" in left[f"{name} metrics"]
        assert len(left[f"{name} events"]) > 100
        limits = Path(f"/proc/{workstation.services[name].process.pid}/limits").read_text()
        core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
        assert core.split()[4:6] == ["0", "0"], name
    assert "state/exlab-wizard/secrets.enc" in left
    assert b"lims" in left["state/secrets/events.sqlite3"] + left.get("state/secrets/events.sqlite3-wal", b"")
    assert places_with(left, secret) == []
    for leak in ("lims_gateway.log", "state/secrets/events.sqlite3-wal"):
        for value in secret:
            leaking = {**left, leak: left.get(leak, b"") + b'{"event": "login", "body": "' + value.encode() + b'"}\n'}
            assert places_with(leaking, secret) == [leak]
