"""Receipts, evidence and cleanup on the command line; a receipt is checked while nothing runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.e2e.terminal import NO, NOT_FOUND, Operator

VERIFIER = Path(__file__).parents[2] / "docs" / "verify_receipt.py"


async def test_receipts_evidence_and_cleanup(operator: Operator, tmp_path: Path) -> None:
    run = operator.site.make_run({"a.tif": b"x" * 5000, "sub/b.csv": b"1,2\n"})
    assert (await operator("receipt", "get", run)).status == NOT_FOUND
    await operator("run", "queue", run)
    assert (await operator("job", "watch", "--run", run)).status == 0
    receipt = tmp_path / "receipt.json"
    receipt.write_text((await operator("receipt", "get", run)).out, encoding="utf-8")
    copy = operator.site.at_nas(run)
    (key,) = (operator.site.lab.folder / "state/sync_engine/keys").glob("*.pub")
    valid = await operator("receipt", "verify", str(receipt), "--run", str(copy), "--key", str(key))
    assert (valid.status, valid.err) == (0, "")
    assert valid.out.startswith("valid: 2 files of 5004 bytes")
    as_json = await operator("receipt", "verify", str(receipt), "--run", str(copy), "-o", "json")
    assert as_json.json["valid"] is True
    by_script = subprocess.run(
        [sys.executable, "-I", str(VERIFIER), str(receipt), str(copy), str(key)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (by_script.returncode, by_script.stderr) == (0, "")
    (copy / "sub/b.csv").write_bytes(b"1,3\n")
    wrong = await operator("receipt", "verify", str(receipt), "--run", str(copy))
    assert (wrong.status, wrong.err) == (NO, "sub/b.csv: has another content\n")
    (copy / "sub/b.csv").write_bytes(b"1,2\n")
    document = json.loads(receipt.read_text(encoding="utf-8"))
    receipt.write_text(json.dumps({**document, "file_count": 3}), encoding="utf-8")
    forged = await operator("receipt", "verify", str(receipt), "--run", str(copy))
    assert forged.status == NO
    assert forged.err.startswith("signature: ")
    told = await operator("run", "evidence", run, "-o", "json")
    lines = [json.loads(line) for line in told.out.splitlines()]
    assert {line["path"]: line["grade"] for line in lines} == {"a.tif": "E4", "sub/b.csv": "E4"}
    dry = await operator("run", "clean", run, "--dry-run")
    assert dry.status == NO
    assert "nas_cleanup.enabled is false" in dry.out
    held = await operator("run", "clean", run, "--reason", "disk is full", "-o", "json")
    assert held.status == NO
    assert next(i["name"] for i in held.json["interlocks"] if not i.get("satisfied")) == "enabled"
    assert (operator.site.local(run) / "a.tif").exists()
    shown = await operator("job", "list", "--run", run, "-o", "json")
    assert shown.json[0]["waiting_on"][0]["condition"] == "cleanup_interlock"


async def test_more_files_are_counted_than_are_named(operator: Operator) -> None:
    run = operator.site.make_run({f"{number}.tif": b"x" for number in range(130)})
    await operator("run", "queue", run)
    assert (await operator("job", "watch", "--run", run)).status == 0
    for file in operator.site.at_nas(run).glob("?.tif"):
        file.write_bytes(b"y")
    for file in operator.site.at_nas(run).glob("??*.tif"):
        file.unlink()
    # Else the engine mends it at once.
    assert (await operator("equipment", "pause", "CONFOCAL_01", "--reason", "the NAS is looked at")).status == 0
    verified = await operator("run", "verify", run)
    assert verified.status == NO
    assert "default: missing: and 20 more\n" in verified.err
    told = (await operator("problems", "--run", run)).out
    assert "120 of 130 files missing, 10 differing" in told
