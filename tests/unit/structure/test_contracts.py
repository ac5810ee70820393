"""The contracts: generated code is reproducible, and every error reason has its mapping and its test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

import services.lims_gateway.projects.errors
import services.secrets.errors
import services.sync_engine.errors  # noqa: F401 -- imported so that every error class is defined
from cli.event_payloads import EVENT_PAYLOADS
from labferry.events.v1 import error_reason_pb2 as events
from labferry.events.v1.blob_pb2 import blob
from labferry.lims.v1 import error_reason_pb2 as lims
from labferry.secrets.v1 import error_reason_pb2 as secrets
from labferry.service.v1 import error_reason_pb2 as general
from labferry.sync.v1 import error_reason_pb2 as sync
from libs.service_kit.errors import LabferryError

ROOT = Path(__file__).parents[3]
PREFIX = "ERROR_REASON_"
REASONS = [
    ("labferry", general.ErrorReason),
    ("events.labferry", events.ErrorReason),
    ("sync.labferry", sync.ErrorReason),
    ("lims.labferry", lims.ErrorReason),
    ("secrets.labferry", secrets.ErrorReason),
]


def _error_classes(base: type[LabferryError] = LabferryError) -> list[type[LabferryError]]:
    return [c for sub in base.__subclasses__() for c in (sub, *_error_classes(sub))]


@pytest.mark.parametrize(("domain", "enum"), REASONS)
def test_every_reason_has_one_error_and_a_test(domain: str, enum: EnumTypeWrapper) -> None:
    mapped = {(c.reason.domain, c.reason.name) for c in _error_classes()}
    here = Path(__file__)
    texts = [p.read_text(encoding="utf-8") for p in (ROOT / "tests").rglob("*.py") if p != here]
    for name in enum.keys():  # noqa: SIM118 -- the wrapper is no mapping
        short = name.removeprefix(PREFIX)
        if short == "UNSPECIFIED" or enum.DESCRIPTOR.values_by_name[name].GetOptions().deprecated:
            continue
        assert (domain, short) in mapped, f"no error class maps to {domain} {short}"
        assert any(short in text for text in texts), f"no test names {short}"


def test_generated_code_is_what_make_protos_makes(tmp_path: Path) -> None:
    protos = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "protos").rglob("*.proto"))
    command = [
        *(sys.executable, "-m", "grpc_tools.protoc", "-Iprotos", f"--python_out={tmp_path}"),
        *(f"--grpc_python_out={tmp_path}", f"--mypy_out=quiet:{tmp_path}", f"--mypy_grpc_out=quiet:{tmp_path}"),
        *protos,
    ]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "PATH": path})
    made = {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*.py*")}
    assert made
    for relative, content in made.items():
        assert (ROOT / relative).read_bytes() == content, f"{relative} is stale: run make protos"


def test_the_lock_names_no_host() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in lock
    assert "--index-url" not in lock


def test_fields_that_name_blobs_say_so() -> None:
    """VerifyLog and BackUp look at no others."""
    payloads = [m for module in EVENT_PAYLOADS for m in module.DESCRIPTOR.message_types_by_name.values()]
    named = {f.full_name for m in payloads for f in m.fields if f.name.endswith(("_blob", "_blobs"))}
    said = {f.full_name for m in payloads for f in m.fields if f.GetOptions().Extensions[blob]}
    assert named == said != set()


def test_every_payload_of_an_event_is_known_to_the_command_line() -> None:
    known = {module.DESCRIPTOR.name for module in EVENT_PAYLOADS}
    assert known == {str(p.relative_to(ROOT / "protos")) for p in (ROOT / "protos").rglob("*_events.proto")}
