"""Version 2 of the encrypted file: entered on request, read by hand, never left again."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from pathlib import Path

import grpc
from argon2.low_level import Type, hash_secret_raw
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from labferry.events.v1 import secret_events_pb2 as facts
from labferry.secrets.v1 import secrets_service_pb2 as pb
from tests.integration.secrets.running_service import PASSPHRASE, Lab, RunningService, refusal, running, start
from tests.integration.secrets.test_encrypted_file import by_hand, put

READ_LIMS = pb.GetSecretRequest(username="lims")
UPGRADE = pb.UpgradeStoreRequest(passphrase=PASSPHRASE)
DOWNGRADED = (grpc.StatusCode.FAILED_PRECONDITION, "STORE_DOWNGRADED")


def read_by_hand(path: Path) -> list[dict[str, str]]:
    """From the published description (docs/decisions)."""
    document = json.loads(path.read_text())
    kdf = document["kdf"]
    cost = (kdf["time_cost"], kdf["memory_kib"], kdf["parallelism"])
    key = hash_secret_raw(PASSPHRASE.encode(), base64.b64decode(kdf["salt"]), *cost, 32, Type.ID)
    head = {name: document[name] for name in ("version", "cipher", "kdf")}
    authenticated = json.dumps(head, separators=(",", ":")).encode()
    nonce, ciphertext = base64.b64decode(document["nonce"]), base64.b64decode(document["ciphertext"])
    entries: list[dict[str, str]] = json.loads(AESGCM(key).decrypt(nonce, ciphertext, authenticated))
    return entries


async def test_it_is_entered_on_request_and_kept_by_every_write(secrets: RunningService) -> None:
    operator, gateway, path = await secrets.secrets(), await secrets.secrets("lims_gateway"), secrets.lab.secrets_file
    await operator.SetSecret(pb.SetSecretRequest(username="lims", value="value"))
    assert (await operator.GetStatus(pb.GetStatusRequest())).format_version == 1
    before = path.read_bytes()
    wrong = operator.UpgradeStore(pb.UpgradeStoreRequest(passphrase="wrong one"))
    assert await refusal(wrong) == (grpc.StatusCode.PERMISSION_DENIED, "WRONG_PASSPHRASE")
    assert path.read_bytes() == before
    assert (await operator.UpgradeStore(UPGRADE)).format_version == 2
    after = path.read_bytes()
    assert (await operator.UpgradeStore(UPGRADE)).format_version == 2
    assert path.read_bytes() == after
    assert path.stat().st_mode & 0o777 == 0o600
    assert (await gateway.GetSecret(READ_LIMS)).value == "value"
    await operator.SetSecret(pb.SetSecretRequest(service="plate-reader", username="lims", value="ü"))
    assert read_by_hand(path) == [
        {"service": "exlab-wizard", "username": "lims", "value": "value"},
        {"service": "plate-reader", "username": "lims", "value": "ü"},
    ]
    listed = (await operator.ListSecrets(pb.ListSecretsRequest(service="plate-reader"))).secrets
    assert [name.username for name in listed] == ["lims"]
    await operator.ChangePassphrase(pb.ChangePassphraseRequest(old=PASSPHRASE, new="another long one"))
    assert json.loads(path.read_text())["version"] == 2
    delete = pb.DeleteSecretRequest(service="plate-reader", username="lims", reason="sold")
    assert (await operator.DeleteSecret(delete)).existed
    (upgraded,) = [e for e in await secrets.events() if e.type == "secrets.store_upgraded.v1"]
    fact = facts.SecretStoreUpgraded()
    assert upgraded.payload.Unpack(fact)
    assert (fact.from_version, fact.to_version, upgraded.actor) == (1, 2, "operator-1")


async def test_a_sealed_one_stays_sealed_and_the_older_one_is_refused_from_then_on(lab: Lab) -> None:
    async with running(lab, "secrets") as service:
        operator = await service.secrets()
        await operator.SetSecret(pb.SetSecretRequest(username="lims", value="value"))
        await operator.Seal(pb.SealRequest())
        old = lab.secrets_file.read_text()
        status = await operator.UpgradeStore(UPGRADE)
        assert (status.sealed, status.format_version) == (True, 0)
        new = lab.secrets_file.read_text()
        assert not (await operator.Unseal(pb.UnsealRequest(passphrase=PASSPHRASE))).sealed
        for older in (old, by_hand({"lims": "forged"})):
            put(lab, older)
            gateway = await service.secrets("lims_gateway")
            assert (await refusal(gateway.GetSecret(READ_LIMS)))[1] == "SEALED"
            assert await refusal(operator.Unseal(pb.UnsealRequest(passphrase=PASSPHRASE))) == DOWNGRADED
            assert await refusal(operator.UpgradeStore(UPGRADE)) == DOWNGRADED
            assert lab.secrets_file.read_text() == older
    async with running(lab, "secrets") as service:
        operator = await service.secrets()
        assert (await operator.GetStatus(pb.GetStatusRequest())).sealed
        assert "was upgraded before" in lab.log_text("secrets")
        put(lab, new)
        await operator.Unseal(pb.UnsealRequest(passphrase=PASSPHRASE))
        assert (await (await service.secrets("lims_gateway")).GetSecret(READ_LIMS)).value == "value"


async def test_altered_parameters_are_damage_and_no_wrong_passphrase(secrets: RunningService) -> None:
    operator, lab = await secrets.secrets(), secrets.lab
    await operator.UpgradeStore(UPGRADE)
    whole = json.loads(lab.secrets_file.read_text())
    lost = (grpc.StatusCode.DATA_LOSS, "STORE_DAMAGED")
    kdf = whole["kdf"]
    for damaged in (
        {**whole, "kdf": {**kdf, "time_cost": 4}},
        {**whole, "kdf": {**kdf, "memory_kib": 1 << 40}},
        {**whole, "cipher": "none"},
        {**whole, "ciphertext": base64.b64encode(bytes(64)).decode()},
        {**whole, "nonce": "AAAA"},
        {"version": 2},
    ):
        put(lab, json.dumps(damaged))
        await operator.Seal(pb.SealRequest())
        assert await refusal(operator.Unseal(pb.UnsealRequest(passphrase=PASSPHRASE))) == lost
    put(lab, json.dumps(whole))
    assert not (await operator.Unseal(pb.UnsealRequest(passphrase=PASSPHRASE))).sealed


async def test_killed_while_it_is_upgraded_the_file_opens_in_one_of_the_two(lab: Lab) -> None:
    chance = random.Random(11)
    async with running(lab, "secrets") as service:
        await (await service.secrets()).SetSecret(pb.SetSecretRequest(username="lims", value="value"))
    for _ in range(3):
        service = await start(lab, "secrets")
        upgrading = asyncio.ensure_future((await service.secrets()).UpgradeStore(UPGRADE))
        await asyncio.wait([upgrading], timeout=chance.uniform(0.0, 0.4))
        await service.kill()
        await asyncio.wait([upgrading])
        upgrading.exception()
        await service.resources.aclose()
        assert json.loads(lab.secrets_file.read_text())["version"] in (1, 2)
    async with running(lab, "secrets") as service:
        assert (await (await service.secrets("lims_gateway")).GetSecret(READ_LIMS)).value == "value"
        assert (await (await service.secrets()).UpgradeStore(UPGRADE)).format_version == 2
