"""How the demo checks what it says: with the files themselves, sha256sum, and the answers of the services."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from cli.demo.calls import Services
from cli.demo.stage import Stage
from cli.json_form import json_form
from labferry.events.v1 import event_log_service_pb2
from labferry.sync.v1 import run_service_pb2, sync_service_pb2
from libs.run_tree.manifest import is_changing_file

_PATIENCE_SECONDS = 15.0


class DemoFailedError(Exception):
    """A promise was not kept; the message says which."""


def require(kept: bool, otherwise: str) -> None:
    if not kept:
        raise DemoFailedError(otherwise)


def creation(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / ".exlab-wizard" / "creation.json").read_text(encoding="utf-8"))
    return document


def sync_status(folder: Path) -> str:
    return str(creation(folder).get("sync_status", "pending"))


def is_changing(relative: bytes) -> bool:
    return is_changing_file(relative)


async def sha256sum(folder: Path) -> int:
    """Runs the real `sha256sum -c` on the manifest at the destination. Returns how many files it found to be right."""
    process = await asyncio.create_subprocess_exec(
        *("sha256sum", "-c", "--strict", ".exlab-wizard/checksums.sha256"),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, complaints = await process.communicate()
    require(process.returncode == 0, f"sha256sum -c in {folder}: {complaints.decode(errors='replace')}")
    return out.count(b": OK\n")


def everything_logged(stage: Stage) -> str:
    """Every log file, database and configuration of the demo, as text; the encrypted file too."""
    elsewhere = (stage.lab, stage.nas, stage.password_file)
    kept = [p for p in stage.folder.rglob("*") if p.is_file() and not any(p.is_relative_to(e) for e in elsewhere)]
    return "\n".join(p.read_bytes().decode("latin-1") for p in kept)


async def everything_known(calls: Services, run: str) -> dict[str, Any]:
    """All that the services tell of jobs, a run and its overrides."""
    jobs = await calls.sync.ListJobs(sync_service_pb2.ListJobsRequest())
    found = await calls.runs.GetRun(run_service_pb2.GetRunRequest(run=run))
    overrides = await calls.runs.ListOverrides(run_service_pb2.ListOverridesRequest(run=run))
    # The file itself is compared on its own.
    found.ClearField("creation")
    found.ClearField("foreign_sync_status")
    return {"jobs": json_form(jobs), "run": json_form(found), "overrides": json_form(overrides)}


def delete_read_models(stage: Stage) -> list[str]:
    removed = sorted((stage.state / "sync_engine").glob("read_models.sqlite3*"))
    for path in removed:
        path.unlink()
    require(bool(removed), "there were no read models to delete")
    return [p.name for p in removed]


def drop_overrides(folder: Path) -> None:
    """Takes the array out of creation.json, as a careless editor might."""
    document = creation(folder)
    document.pop("validation_overrides", None)
    path = folder / ".exlab-wizard" / "creation.json"
    path.write_text(json.dumps(document, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")


async def until_equal(folder: Path, wanted: dict[str, Any]) -> None:
    """The engine writes files behind its log: they are right a moment after its start."""
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while creation(folder) != wanted:  # noqa: ASYNC110 -- another process writes the file
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise DemoFailedError("creation.json was not rebuilt from the log") from None


async def rebuild_differences(calls: Services) -> int:
    answer = await calls.events.RebuildProjections(event_log_service_pb2.RebuildProjectionsRequest())
    differences: int = sum(p.differences for p in answer.projections)
    require(differences == 0, f"{differences} rows differ between the read models and a replay of the log")
    return differences


async def verify_log(calls: Services) -> event_log_service_pb2.VerifyLogResponse:
    answer: event_log_service_pb2.VerifyLogResponse = await calls.events.VerifyLog(
        event_log_service_pb2.VerifyLogRequest()
    )
    return answer
