"""More than one LIMS: which one answers, and an eLabFTW beside the REST one. TLS, and names that lead nowhere."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from labferry.lims.v1 import lims_service_pb2 as pb
from tests.integration.lims_gateway.elabftw_server import CATEGORY_ID, published_shape
from tests.integration.lims_gateway.running_lims import EMAIL, ROWS, Site, running_lims
from tests.integration.secrets.running_service import START_SECONDS, refusal

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEY = "3-the-key-of-the-tests"
REFUSED = (grpc.StatusCode.FAILED_PRECONDITION, "LIMS_LOGIN_REFUSED")
UNREACHABLE = (grpc.StatusCode.UNAVAILABLE, "LIMS_UNREACHABLE")
TLS_ENDS_LATER = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=2)


@dataclass(frozen=True)
class RunningElabftw:
    address: str
    control: httpx.AsyncClient

    async def told(self, what: str, content: Any = None) -> None:
        (await self.control.post(f"/_control/{what}", json=content)).raise_for_status()

    async def requests(self) -> list[dict[str, str]]:
        requests: list[dict[str, str]] = (await self.control.get("/_control/requests")).json()
        return requests


@asynccontextmanager
async def running_elabftw() -> AsyncIterator[RunningElabftw]:
    module = "tests.integration.lims_gateway.elabftw_server"
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", module, KEY, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_SECONDS):
            address = (await process.stdout.readline()).decode().removeprefix("listening on ").strip()
        async with httpx.AsyncClient(base_url=address, trust_env=False) as control:
            yield RunningElabftw(address, control)
    finally:
        process.terminate()
        await process.wait()


async def test_an_elabftw_beside_the_default_lims(site: Site) -> None:
    async with running_elabftw() as elab:
        settings = {
            "endpoint": f"{elab.address}/api/v2/",
            "kind": "elabftw",
            "category_id": CATEGORY_ID,
            "secret": "lims:elab",
            "statuses": {"On hold": "pending"},
        }
        stub = await site.restart_gateway({"others": [settings]})
        there = {"endpoint": elab.address}
        assert await refusal(stub.ListProjects(pb.ListProjectsRequest(**there))) == REFUSED
        assert await elab.requests() == []
        await site.store_secret("lims:elab", "a wrong key")
        assert await refusal(stub.ListProjects(pb.ListProjectsRequest(**there))) == REFUSED
        health = await stub.CheckHealth(pb.CheckHealthRequest(**there))
        assert (health.ok, "lims:elab" in health.reason, "a wrong key" in health.reason) == (False, True, False)
        for odd in ("schlüssel", "two\nlines", " "):
            await site.store_secret("lims:elab", odd)
            assert await refusal(stub.ListProjects(pb.ListProjectsRequest(**there))) == REFUSED
        await site.store_secret("lims:elab", f"{KEY}\n")

        answer = await stub.ListProjects(pb.ListProjectsRequest(**there))
        assert answer.source == pb.SOURCE_LIVE
        statuses = {p.short_id: (p.name, pb.ProjectStatus.Name(p.status)[15:]) for p in answer.projects}
        assert statuses == {
            "ELAB-42": ("Cortex Q3 Pilot", "ACTIVE"),
            "ELAB-43": ("Müller Glia Map", "PENDING"),
            "ELAB-51": ("Retina Atlas", "COMPLETED"),
            "ELAB-52": ("Plasmid Screen", "ARCHIVED"),
        }
        assert (await stub.GetCurrentUser(pb.GetCurrentUserRequest(**there))).email == "toto@yopmail.com"
        assert (await stub.CheckHealth(pb.CheckHealthRequest(**there))).ok
        await _newer_than_the_cache(stub, elab)
        await _one_that_goes_away_between_two_pages(stub, elab)
        assert {r["method"] for r in await elab.requests()} == {"GET"}
        assert {r["path"].split("/")[3] for r in await elab.requests()} == {"items", "users"}
        default = await stub.ListProjects(pb.ListProjectsRequest())
        assert len(default.projects) == len(ROWS)
        missing = stub.GetProject(pb.GetProjectRequest(id="ELAB-42"))
        assert await refusal(missing) == (grpc.StatusCode.NOT_FOUND, "PROJECT_NOT_FOUND")
    assert KEY not in site.gateway_log()


async def _newer_than_the_cache(stub: Any, elab: RunningElabftw) -> None:
    items = published_shape("items.json")
    new = {**items[0], "id": 60, "elabid": "20250101-new", "title": "Newer than the cache"}
    another = {**items[0], "id": 61, "elabid": "20250101-antibody", "title": "Antibody", "category": CATEGORY_ID + 1}
    await elab.told("items", [*items, new, another])
    for id_ in ("ELAB-60", "20250101-new"):
        found = await stub.GetProject(pb.GetProjectRequest(id=id_, endpoint=elab.address))
        assert (found.project.name, found.source) == ("Newer than the cache", pb.SOURCE_LIVE)
    for id_ in ("ELAB-61", "20250101-antibody", "ELAB-77", "ELAB-x"):
        missing = stub.GetProject(pb.GetProjectRequest(id=id_, endpoint=elab.address))
        assert await refusal(missing) == (grpc.StatusCode.NOT_FOUND, "PROJECT_NOT_FOUND")


async def _one_that_goes_away_between_two_pages(stub: Any, elab: RunningElabftw) -> None:
    """What moved up one place must not be taken for gone."""
    items = published_shape("items.json")
    await elab.told("items", items)
    await elab.told("remove_between_pages")
    request = pb.ListProjectsRequest(endpoint=elab.address, refresh=True)
    answer = await stub.ListProjects(request)
    assert {p.short_id for p in answer.projects} == {"ELAB-43", "ELAB-51", "ELAB-52"}
    assert answer.source == pb.SOURCE_LIVE


def write_certificate(folder: Path, name: str, issuer: tuple[Any, Any] | None, address: str) -> tuple[Any, Any]:
    """A certificate, its own issuer when there is no other, and its key, as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made_by = issuer[0].subject if issuer else subject
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(made_by)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(TLS_ENDS_LATER - datetime.timedelta(days=3))
        .not_valid_after(TLS_ENDS_LATER)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .sign(issuer[1] if issuer else key, hashes.SHA256())
    )
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    no_password = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, no_password)
    (folder / f"{name}.key").write_bytes(private)
    return certificate, key


async def test_certificates_are_checked_and_what_leads_nowhere_is_unreachable(site: Site, tmp_path: Path) -> None:
    authority = write_certificate(tmp_path, "authority", None, "127.0.0.1")
    write_certificate(tmp_path, "right", authority, "127.0.0.1")
    write_certificate(tmp_path, "misnamed", authority, "127.0.0.9")

    def pem(name: str) -> list[str]:
        return ["--certificate", str(tmp_path / f"{name}.pem"), "--key", str(tmp_path / f"{name}.key")]

    with socket.create_server(("127.0.0.1", 0)) as listening:
        closed = f"http://127.0.0.1:{listening.getsockname()[1]}"
    ca_file = str(tmp_path / "authority.pem")
    async with (
        running_lims(tmp_path, tls=pem("right")) as right,
        running_lims(tmp_path, tls=pem("misnamed")) as misnamed,
    ):
        same_place = right.address.replace("127.0.0.1", "localhost")
        others = [
            {"endpoint": misnamed.address, "email": EMAIL, "ca_file": ca_file},
            {"endpoint": same_place, "email": EMAIL},
            {"endpoint": closed, "email": EMAIL},
            {"endpoint": "http://lims.invalid", "email": EMAIL},
        ]
        stub = await site.restart_gateway({"endpoint": right.address, "ca_file": ca_file, "others": others})
        assert len((await stub.ListProjects(pb.ListProjectsRequest())).projects) == len(ROWS)
        for other in others:
            endpoint = other["endpoint"]
            assert await refusal(stub.ListProjects(pb.ListProjectsRequest(endpoint=endpoint))) == UNREACHABLE
            health = await stub.CheckHealth(pb.CheckHealthRequest(endpoint=endpoint))
            assert (health.ok, health.latency_ms > 0) == (False, True)
            assert ("CERTIFICATE_VERIFY_FAILED" in health.reason) == endpoint.startswith("https"), health.reason
        assert await misnamed.requests() == []
        assert all(path.startswith("/api/v1/") for _, path in await right.requests())
