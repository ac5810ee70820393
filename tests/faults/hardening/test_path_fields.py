"""Nothing that a caller names, and no symlink that appears meanwhile, leads out of the configured roots."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from libs.service_kit.identity import Role
from tests.faults.hardening.canary import CANARY, Canary
from tests.faults.hardening.published_methods import PATIENCE, Method, published_methods
from tests.faults.hardening.whole_lab import WholeLab
from tests.integration.secrets.running_service import error_info
from tests.integration.sync_engine.running_engine import EQUIPMENT, PROJECT

pytestmark = pytest.mark.asyncio(loop_scope="session")

NAMES_A_PLACE = {
    *("run", "runs", "project", "project_path", "equipment_id", "source_folder"),
    *("destination", "path", "proposed_path", "file_names"),
}
LEAF = "Run_2026-01-01T00-00"
REFUSALS = {
    *("PATH_OUTSIDE_ROOTS", "INVALID_FIELD", "RUN_NOT_FOUND", "EQUIPMENT_NOT_CONFIGURED", "DESTINATION_NOT_FOUND"),
    # The log is asked before the disk.
    *("NOTHING_VERIFIED", "RECEIPT_NOT_FOUND"),
}
# They look for what fits, or say what would be: a place that is nowhere fits nothing.
ANSWERED = {"ListJobs", "ListRuns", "SteerJobs", "WatchJobs", "EnqueueRuns", "ClearStagedRuns", "ValidateCreation"}


def hostile(canary: Canary, local_root: Path) -> Iterator[str]:
    """Ways out of the root, each to a run that is there."""
    below = f"outside/{PROJECT}/Runs/{LEAF}"
    (local_root / EQUIPMENT / "Linked").symlink_to(canary.folder / PROJECT)
    yield f"{EQUIPMENT}/Linked/Runs/{LEAF}"
    yield str(local_root / EQUIPMENT / "Linked" / "Runs" / LEAF)
    yield f"../{below}"
    yield f"{EQUIPMENT}/../../{below}"
    yield f"{EQUIPMENT}/{PROJECT}/Runs/../../../../{below}/{LEAF}"
    yield str(canary.folder / PROJECT / "Runs" / LEAF)
    yield f"//{canary.folder}"
    yield f"file://{canary.folder}"
    yield f"..\\..\\{below}".replace("/", "\\")
    yield f"..%2f..%2f{below}".replace("/", "%2f")
    yield f"\u2024\u2024/\u2024\u2024\u2215{below}"
    yield f"\uff0e\uff0e\uff0f{below}"
    yield f"{EQUIPMENT}/{PROJECT}/Runs/{LEAF}\0/../../../{below}"
    yield "~/outside"
    yield f"{EQUIPMENT}/{'a' * 300}/Runs/{LEAF}"
    yield "../" * 1500 + str(canary.folder)


def request_with(method: Method, field: FieldDescriptor, value: Any, run: str) -> Message:
    """Everything else is right, as far as one can be for all methods."""
    others = {"reason": "because", "operator": "asmith", "equipment_id": EQUIPMENT, "project": PROJECT, "run": run}
    strings = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
    known = {f.name for f in method.request.fields if f.type in strings and not f.containing_oneof}
    fields: dict[str, Any] = {name: text for name, text in others.items() if name in known}
    given = value.encode() if field.type == FieldDescriptor.TYPE_BYTES else value
    return method.message(**{**fields, field.name: [given] if field.is_repeated else given})


async def test_every_field_that_names_a_place(lab: WholeLab) -> None:
    run = lab.site.make_run()
    canary = Canary.at(lab.site.lab.folder / "outside", f"{PROJECT}/Runs/{LEAF}")
    values = list(hostile(canary, lab.site.local_root))
    checked, let_in = set(), []
    channel = await lab.channel("sync_engine", Role.ADMIN.value)
    for method in await published_methods(channel):
        for field in method.request.fields:
            if field.name not in NAMES_A_PLACE or field.cpp_type != FieldDescriptor.CPPTYPE_STRING:
                continue
            checked.add(method.descriptor.name)
            for value in values:
                request = request_with(method, field, value, run)
                outcome = await outcome_of(method, channel, request)
                if outcome:
                    let_in.append(f"{method.name} {field.name}={value[:120]!r}: {outcome}")
    assert not let_in, "\n".join(let_in)
    assert {"EnqueueRun", "AdoptRun", "CleanRun", "VerifyRun", "GetRun", "QueryProblems"} <= checked
    canary.assert_untouched()
    assert not canary.traces_below(lab.site.local_root / EQUIPMENT / PROJECT, lab.site.nas())
    await lab.assert_serving()


async def outcome_of(method: Method, channel: grpc.aio.Channel, request: Message) -> str:
    """ "" for a refusal by name, or an answer that found nothing."""
    call = method.call(channel, request, timeout=0.05 if method.descriptor.name == "WatchJobs" else PATIENCE)
    answers = []
    try:
        answers = [a async for a in call] if method.descriptor.server_streaming else [await call]
    except grpc.aio.AioRpcError as error:
        if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED and method.descriptor.name == "WatchJobs":
            return ""
        reason = error_info(error).reason
        return "" if reason in REFUSALS else f"{reason}: {error.details()}"
    if method.descriptor.name not in ANSWERED or any(_found_something(method, answer) for answer in answers):
        return f"answered {answers}"
    return ""


def _found_something(method: Method, answer: Any) -> bool:
    if method.descriptor.name == "EnqueueRuns":
        return answer.error.reason not in REFUSALS
    return CANARY in answer.SerializeToString() or (method.descriptor.name == "ListRuns" and bool(answer.runs))
