"""labferry identity: tokens of people and services, against running services; and a lab's own certificates."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store

from tests.e2e.terminal import NO, Operator
from tests.integration.secrets.running_service import RunningService, new_lab, running
from tests.integration.sync_engine.running_engine import Site

UNAUTHENTICATED, DENIED = 64 + 16, 64 + 7


@pytest.fixture
async def secrets() -> AsyncIterator[RunningService]:
    async with new_lab() as lab:
        lab.write_passphrase()
        async with running(lab, "secrets") as service:
            yield service


async def test_a_person_gets_a_token_and_loses_it(secrets: RunningService) -> None:
    labferry = Operator(Site(secrets.lab))
    made = await labferry("identity", "create", "asmith", "--role", "viewer", "--days", "90")
    token_file = Path(made.out.strip())
    assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
    as_smith = ("--token-file", str(token_file))
    assert (await labferry("secret", "status", *as_smith)).status == 0
    assert (await labferry("secret", "seal", *as_smith)).status == DENIED
    old = token_file.read_text()
    assert (await labferry("identity", "rotate", "asmith", "--grace-minutes", "0")).status == 0
    assert token_file.read_text() != old
    assert (await labferry("secret", "status", *as_smith)).status == 0
    (secrets.lab.folder / "old").write_text(old)
    assert (
        await labferry("secret", "status", "--token-file", str(secrets.lab.folder / "old"))
    ).status == UNAUTHENTICATED
    assert (await labferry("identity", "revoke", "asmith")).status == 0
    assert (await labferry("secret", "status", *as_smith)).status == UNAUTHENTICATED
    listed = (await labferry("identity", "list", "-o", "json")).json
    by_name = {identity["name"]: identity for identity in listed}
    assert set(by_name) == {"operator-1", "service:sync_engine", "service:lims_gateway", "asmith"}
    assert by_name["asmith"]["state"].startswith("revoked at")
    assert by_name["asmith"]["roles"] == "viewer"
    again = await labferry("identity", "create", "asmith", "--role", "viewer")
    assert (again.status, "never given twice" in again.err) == (NO, True)
    wrong = await labferry("identity", "create", "bjones", "--role", "king")
    assert (wrong.status, "no role of people" in wrong.err) == (NO, True)
    for text in (made.out + made.err, str(listed), secrets.lab.log_text("secrets")):
        assert old not in text


async def test_a_running_gateway_takes_its_rotated_token_up(secrets: RunningService) -> None:
    lab = secrets.lab
    labferry = Operator(Site(lab))
    lab.settings["lims"] = {"endpoint": "http://127.0.0.1:9", "email": "lab@example.org"}
    async with running(lab, "lims_gateway"):
        for _ in range(2):
            health = await labferry("doctor", "-o", "json")
            assert "IDENTITY_REQUIRED" not in health.out + lab.log_text("lims_gateway")
            assert (await labferry("identity", "rotate", "service:lims_gateway", "--grace-minutes", "0")).status == 0
        assert (await labferry("project", "list")).status != UNAUTHENTICATED
    calls = [line for line in lab.log_text("secrets").splitlines() if "GetSecret" in line]
    assert calls
    assert not [line for line in calls if "UNAUTHENTICATED" in line]


async def test_a_labs_own_certificates(secrets: RunningService, tmp_path: Path) -> None:
    labferry = Operator(Site(secrets.lab))
    made = await labferry("identity", "ca", str(tmp_path / "ca"))
    assert made.out.strip() == str(tmp_path / "ca" / "ca.pem")
    assert stat.S_IMODE((tmp_path / "ca" / "ca.key").stat().st_mode) == 0o600
    assert (await labferry("identity", "ca", str(tmp_path / "ca"))).status == NO
    issue = ("identity", "certificate", "--ca", str(tmp_path / "ca"), "--to", str(tmp_path / "sync"))
    for hours in ("24", "48"):
        issued = await labferry(*issue, "--san", "sync.lab", "--san", "10.0.0.7", "--hours", hours)
        assert issued.status == 0, issued
    root = x509.load_pem_x509_certificate((tmp_path / "ca" / "ca.pem").read_bytes())
    leaf = x509.load_pem_x509_certificate((tmp_path / "sync" / "certificate.pem").read_bytes())
    judge = PolicyBuilder().store(Store([root])).build_server_verifier(x509.DNSName("sync.lab"))
    assert judge.verify(leaf, []) == [leaf, root]
    assert stat.S_IMODE((tmp_path / "sync" / "key.pem").stat().st_mode) == 0o600
    refused = await labferry(*issue[:-1], str(tmp_path / "x"), "--san", "ünïcode.lab")
    assert refused.status == NO, refused
