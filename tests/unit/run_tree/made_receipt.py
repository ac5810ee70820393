"""A run with a signed receipt, and what Labferry and the script in docs/ say of the two."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from libs.run_tree.manifest import MANIFEST_PATH, ManifestEntry, format_manifest
from libs.run_tree.receipt import ProvenCopy, Receipt, ReceiptError, read_receipt, sign_receipt
from libs.run_tree.receipt_check import check_run

VERIFIER = Path(__file__).parents[3] / "docs" / "verify_receipt.py"
FILES = {
    b"a.tif": b"pixels",
    b"sub/two\nlines": b"1,2\n",
    "größe.csv".encode(): b"",
    b"\xff.bin": b"raw",
    b"-": b"a name of its own",
}
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
FINGERPRINT = hashlib.sha256(KEY.public_key().public_bytes_raw()).hexdigest()[:16]


def made_run(above: Path) -> Path:
    folder = above / "Run_2026-04-17T14-32"
    (folder / ".exlab-wizard").mkdir(parents=True)
    for name, content in FILES.items():
        path = folder / name.decode(errors="surrogateescape")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    entries = [ManifestEntry(name, hashlib.sha256(content).hexdigest()) for name, content in FILES.items()]
    (folder / MANIFEST_PATH.decode()).write_bytes(format_manifest(entries))
    return folder


def made_receipt(run: Path, /, **changed: Any) -> bytes:
    copy = ProvenCopy(
        destination="nas",
        transport="mounted",
        job_id="j",
        grade="E4",
        method="uncached_read",
        host="größe",
        note="",
        verified_time="2026-04-17T15:00:00.000000Z",
        expected=len(FILES),
        hashed=len(FILES),
        matched=len(FILES),
        evidence_sha256="1" * 64,
        log_position=7,
        log_hash="2" * 64,
    )
    receipt = Receipt(
        run="CONFOCAL_01/Cortex Q3 Pilot/Runs/Run_2026-04-17T14-32",
        equipment_id="CONFOCAL_01",
        destination="nas",
        job_id="j",
        amendment=0,
        issued_time="2026-04-17T15:00:01.000000Z",
        manifest_sha256=hashlib.sha256((run / MANIFEST_PATH.decode()).read_bytes()).hexdigest(),
        file_count=len(FILES),
        byte_count=sum(map(len, FILES.values())),
        copies=[copy],
        log_id="store",
        tools={"labferry": "1"},
    )
    return sign_receipt(msgspec.structs.replace(receipt, **changed), KEY)


def problem_of(content: bytes, run: Path) -> str:
    """What Labferry says first; empty: it is valid."""
    try:
        wrong = check_run(read_receipt(content).receipt, run).wrong
    except ReceiptError as error:
        return error.field
    return wrong[0].what if wrong else ""


def by_script(content: bytes, run: Path, *key: str) -> subprocess.CompletedProcess[str]:
    file = run.parent / "receipt.json"
    file.write_bytes(content)
    return script(file, run, *key)


def script(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(VERIFIER), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def refused_in_a_line(said: subprocess.CompletedProcess[str], what: str) -> None:
    assert (said.returncode, said.stdout, said.stderr.count("\n")) == (1, "", 1)
    assert said.stderr.startswith(f"{what}: ")


def signed(document: dict[str, Any]) -> bytes:
    """The document as somebody with the key would sign it, whatever it holds."""
    unsigned = {name: value for name, value in document.items() if name != "signature"}
    canonical = json.dumps(unsigned, sort_keys=True, separators=(",", ":")).encode("ascii")
    return json.dumps({**unsigned, "signature": KEY.sign(canonical).hex()}).encode("ascii")
