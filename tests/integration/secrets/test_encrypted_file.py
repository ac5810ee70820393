"""The encrypted file as another program sees it: made by hand, read by hand, broken, replaced."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path

import grpc
from argon2.low_level import Type, hash_secret_raw
from cryptography.fernet import Fernet

from labferry.secrets.v1 import secrets_service_pb2 as pb
from tests.integration.secrets.running_service import PASSPHRASE, Lab, RunningService, refusal, running

READ_LIMS = pb.GetSecretRequest(username="lims")


def fernet(passphrase: str, salt: bytes) -> Fernet:
    key = hash_secret_raw(passphrase.encode(), salt, 3, 65536, 4, 32, Type.ID)
    return Fernet(base64.urlsafe_b64encode(key))


def by_hand(secrets: dict[str, str], passphrase: str = PASSPHRASE, salt: bytes = b"0123456789abcdef") -> str:
    """A file from the published parameters (FORMATS §8)."""
    token = fernet(passphrase, salt).encrypt(json.dumps(secrets).encode()).decode()
    return json.dumps({"version": 1, "salt": base64.b64encode(salt).decode(), "ciphertext": token})


def read_by_hand(path: Path, passphrase: str = PASSPHRASE) -> dict[str, str]:
    document = json.loads(path.read_text())
    assert list(document) == ["version", "salt", "ciphertext"]
    assert document["version"] == 1
    opened = fernet(passphrase, base64.b64decode(document["salt"])).decrypt(document["ciphertext"])
    entries: dict[str, str] = json.loads(opened)
    return entries


def put(lab: Lab, text: str, mode: int = 0o600) -> None:
    """As the wizard writes: a temporary file that replaces the other."""
    lab.secrets_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = lab.secrets_file.with_suffix(".by-hand")
    temporary.write_text(text)
    temporary.chmod(mode)
    temporary.replace(lab.secrets_file)


async def test_a_file_made_by_hand_opens(lab: Lab) -> None:
    put(lab, by_hand({"lims": "from the wizard", "nas:SCOPE_01": "n"}))
    async with running(lab, "secrets") as service:
        gateway = await service.secrets("lims_gateway")
        assert (await gateway.GetSecret(READ_LIMS)).value == "from the wizard"
        names = (await (await service.secrets()).ListSecrets(pb.ListSecretsRequest())).secrets
        assert [(n.username, n.HasField("set_time")) for n in names] == [("lims", False), ("nas:SCOPE_01", False)]


async def test_the_wizards_own_file_can_be_pointed_at(lab: Lab) -> None:
    put(lab, by_hand({"lims": "elsewhere"}))
    elsewhere = lab.folder / "wizard"
    elsewhere.mkdir(mode=0o755)
    lab.secrets_file.rename(elsewhere / "secrets.enc")
    lab.settings["secrets"]["file"] = str(elsewhere / "secrets.enc")
    async with running(lab, "secrets") as service:
        assert (await (await service.secrets("lims_gateway")).GetSecret(READ_LIMS)).value == "elsewhere"


async def test_our_file_opens_by_hand_and_keeps_its_salt(secrets: RunningService) -> None:
    operator, path = await secrets.secrets(), secrets.lab.secrets_file
    salt = json.loads(path.read_text())["salt"]
    await operator.SetSecret(pb.SetSecretRequest(username="lims", value="ü"))
    await operator.SetSecret(pb.SetSecretRequest(username="nas:A", value="b"))
    assert read_by_hand(path) == {"lims": "ü", "nas:A": "b"}
    assert json.loads(path.read_text())["salt"] == salt
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["secrets.enc"]


async def test_what_the_wizard_writes_meanwhile_is_seen_and_kept(secrets: RunningService) -> None:
    operator, gateway = await secrets.secrets(), await secrets.secrets("lims_gateway")
    salt = base64.b64decode(json.loads(secrets.lab.secrets_file.read_text())["salt"])
    put(secrets.lab, by_hand({"lims": "new", "other": "kept"}, salt=salt))
    assert (await gateway.GetSecret(READ_LIMS)).value == "new"
    put(secrets.lab, by_hand({"lims": "newer", "other": "kept"}, salt=salt))
    await operator.SetSecret(pb.SetSecretRequest(username="mine", value="m"))
    assert read_by_hand(secrets.lab.secrets_file) == {"lims": "newer", "other": "kept", "mine": "m"}


async def test_a_file_with_another_key_seals(secrets: RunningService) -> None:
    operator, gateway = await secrets.secrets(), await secrets.secrets("lims_gateway")
    put(secrets.lab, by_hand({"lims": "theirs"}, passphrase="another passphrase"))
    assert await refusal(gateway.GetSecret(READ_LIMS)) == (grpc.StatusCode.FAILED_PRECONDITION, "SEALED")
    assert (await operator.GetStatus(pb.GetStatusRequest())).sealed
    await operator.Unseal(pb.UnsealRequest(passphrase="another passphrase"))
    assert (await gateway.GetSecret(READ_LIMS)).value == "theirs"


def flip_in_token(data: bytes) -> bytes:
    position = data.index(b"gAAAA") + 40
    other = b"A" if data[position : position + 1] != b"A" else b"B"
    return data[:position] + other + data[position + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "garbage": lambda data: b"\xff\x00 no json",
    "cut off": lambda data: data[: len(data) // 2],
    "flipped in the ciphertext": flip_in_token,
    "short token": lambda data: json.dumps({**json.loads(data), "ciphertext": "gAAAAA=="}).encode(),
    "no salt": lambda data: json.dumps({k: v for k, v in json.loads(data).items() if k != "salt"}).encode(),
    "short salt": lambda data: json.dumps({**json.loads(data), "salt": "AAAA"}).encode(),
}


async def test_damage_is_damage_and_no_wrong_passphrase(secrets: RunningService) -> None:
    gateway, operator, lab = await secrets.secrets("lims_gateway"), await secrets.secrets(), secrets.lab
    await operator.SetSecret(pb.SetSecretRequest(username="lims", value="value"))
    whole = lab.secrets_file.read_bytes()
    lost = (grpc.StatusCode.DATA_LOSS, "STORE_DAMAGED")
    for kind, damage in DAMAGE.items():
        put(lab, damage(whole).decode("latin-1"))
        damaged = lab.secrets_file.read_bytes()
        assert await refusal(gateway.GetSecret(READ_LIMS)) == lost, kind
        assert await refusal(operator.SetSecret(pb.SetSecretRequest(username="lims", value="other"))) == lost, kind
        await operator.Seal(pb.SealRequest())
        assert await refusal(operator.Unseal(pb.UnsealRequest(passphrase=PASSPHRASE))) == lost, kind
        assert lab.secrets_file.read_bytes() == damaged
        put(lab, whole.decode())
        await operator.Unseal(pb.UnsealRequest(passphrase=PASSPHRASE))
        assert (await gateway.GetSecret(READ_LIMS)).value == "value"


async def test_another_version_is_refused(secrets: RunningService) -> None:
    document = json.loads(secrets.lab.secrets_file.read_text())
    put(secrets.lab, json.dumps({**document, "version": 3}))
    unsealing = (await secrets.secrets()).Unseal(pb.UnsealRequest(passphrase=PASSPHRASE))
    assert await refusal(unsealing) == (grpc.StatusCode.FAILED_PRECONDITION, "UNKNOWN_VERSION")


async def test_wide_modes_links_and_open_folders_are_refused(secrets: RunningService) -> None:
    operator, gateway = await secrets.secrets(), await secrets.secrets("lims_gateway")
    unsafe = (grpc.StatusCode.FAILED_PRECONDITION, "UNSAFE_MODE")
    path = secrets.lab.secrets_file
    await operator.SetSecret(pb.SetSecretRequest(username="lims", value="value"))
    for mode in (0o644, 0o640, 0o602):
        path.chmod(mode)
        assert await refusal(gateway.GetSecret(READ_LIMS)) == unsafe
    path.chmod(0o600)
    assert (await gateway.GetSecret(READ_LIMS)).value == "value"
    path.parent.chmod(0o777)
    setting = operator.SetSecret(pb.SetSecretRequest(username="lims", value="other"))
    assert await refusal(setting) == unsafe
    path.parent.chmod(0o700)
    moved = path.with_name("moved")
    path.rename(moved)
    path.symlink_to(moved)
    assert await refusal(gateway.GetSecret(READ_LIMS)) == unsafe
    path.unlink()
    os.mkfifo(path, 0o600)
    assert await refusal(gateway.GetSecret(READ_LIMS)) == unsafe
    path.unlink()
    missing = await refusal(gateway.GetSecret(READ_LIMS))
    assert missing == (grpc.StatusCode.FAILED_PRECONDITION, "NOT_INITIALIZED")
    moved.rename(path)
    assert (await gateway.GetSecret(READ_LIMS)).value == "value"
