"""Arrows run down only: services use libs, never each other; libs use no service; domain modules do no I/O."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[3]
SERVICES = ("secrets", "lims_gateway", "sync_engine")
PURE = (
    "services/sync_engine/jobs/job.py",
    "services/sync_engine/jobs/job_history.py",
    "services/sync_engine/jobs/retry.py",
    "services/sync_engine/runs/run.py",
    "services/sync_engine/validation/rules.py",
    "services/sync_engine/validation/gate.py",
    "services/sync_engine/transfer/name_plan.py",
    "services/secrets/access.py",
    "libs/run_tree/overrides.py",
    "libs/event_log/hash_chain.py",
    "libs/event_log/checkpoint.py",
    "libs/event_log/event_line.py",
)
DOES_IO = {"os", "io", "pathlib", "socket", "subprocess", "sqlite3", "asyncio", "grpc", "httpx", "time", "threading"}


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def _sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def test_no_service_imports_another() -> None:
    for service in SERVICES:
        others = tuple(f"services.{other}" for other in SERVICES if other != service)
        for path in _sources(f"services/{service}"):
            assert not [i for i in _imports(path) if i.startswith((*others, "cli", "tests", "bench"))], path


def test_libs_import_no_service() -> None:
    for path in _sources("libs"):
        assert not [i for i in _imports(path) if i.startswith(("services", "cli", "tests", "bench"))], path


def test_libs_have_no_cycle_between_their_folders() -> None:
    uses = {
        folder.name: {i.split(".")[1] for p in folder.rglob("*.py") for i in _imports(p) if i.startswith("libs.")}
        - {folder.name}
        for folder in (ROOT / "libs").iterdir()
        if folder.is_dir() and folder.name != "__pycache__"
    }
    for folder, used in uses.items():
        for other in used:
            assert folder not in uses[other], f"libs/{folder} and libs/{other} use each other"


def test_the_command_line_meets_the_services_over_grpc_alone() -> None:
    for path in _sources("cli"):
        assert not [i for i in _imports(path) if i.startswith("services")], path


def test_domain_modules_are_pure() -> None:
    for name in PURE:
        assert not {i.split(".")[0] for i in _imports(ROOT / name)} & DOES_IO, name
