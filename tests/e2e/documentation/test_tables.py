"""The tables of docs/ hold every value of the protos and every role of the services, and nothing else."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.main import get_command

from cli.json_form import numbers_by_short_name, short_name
from cli.main import app
from labferry.events.v1 import error_reason_pb2 as events_reasons
from labferry.lims.v1 import error_reason_pb2 as lims_reasons
from labferry.secrets.v1 import error_reason_pb2 as secrets_reasons
from labferry.service.v1 import error_reason_pb2 as service_reasons
from labferry.sync.v1 import error_reason_pb2 as sync_reasons
from labferry.sync.v1 import finding_pb2, job_pb2
from libs.event_log.checkpoint import Checkpoint, sign, to_line
from libs.event_log.hash_chain import LAYOUT
from libs.event_log.published import publish_event_log
from libs.run_tree.ingest_record import StagingState
from libs.service_kit.config import ConfigurationError, load_configuration
from libs.service_kit.errors import LabferryError
from libs.service_kit.identity import ADMINS, OPERATORS, READERS, Caller, Role
from libs.service_kit.server import PublishedService
from services.lims_gateway.projects import errors as lims_errors
from services.lims_gateway.projects import servicer as lims_servicer
from services.secrets import errors as secrets_errors
from services.secrets import servicer as secrets_servicer
from services.sync_engine import errors as sync_errors
from services.sync_engine.equipment import servicer as equipment_servicer
from services.sync_engine.equipment.servicer import EquipmentServicer
from services.sync_engine.jobs import servicer as jobs_servicer
from services.sync_engine.jobs.job import Job, Wait, WaitCondition
from services.sync_engine.jobs.messages import job_message
from services.sync_engine.runs import servicer as runs_servicer
from services.sync_engine.staging import servicer as staging_servicer
from services.sync_engine.staging.staged_run import StagingHold
from services.sync_engine.validation import servicer as problems_servicer
from services.sync_engine.validation.finding import Rule
from tests.e2e.documentation.pages import REPOSITORY, Page, bare, pages

OPERATOR, INTEGRATOR, CLUSTER, DEVELOPER, AUDITOR = (
    Page.read(f"docs/{name}.md") for name in ("operator", "integrator", "cluster-admin", "developer", "auditor")
)
DOMAINS: list[tuple[str, str, Any]] = [
    ("### Any service", "labferry", service_reasons),
    ("### The event log", "events.labferry", events_reasons),
    ("### The sync engine", "sync.labferry", sync_reasons),
    ("### The LIMS gateway", lims_errors.DOMAIN, lims_reasons),
    ("### Secrets", secrets_errors.DOMAIN, secrets_reasons),
]


def _error_classes(base: type[LabferryError]) -> Iterator[type[LabferryError]]:
    for derived in base.__subclasses__():
        yield derived
        yield from _error_classes(derived)


def _codes(domain: str) -> dict[str, set[grpc.StatusCode]]:
    """The statuses that each reason of a domain is sent with, by the errors that the code has."""
    # Importing these modules is what makes their errors known here.
    assert sync_errors and secrets_errors and lims_errors
    codes: dict[str, set[grpc.StatusCode]] = {}
    for error in _error_classes(LabferryError):
        if hasattr(error, "reason") and error.reason.domain == domain:
            codes.setdefault(error.reason.name, set()).add(error.code)
    return codes


@pytest.mark.parametrize(("title", "domain", "module"), DOMAINS, ids=[domain for _, domain, _ in DOMAINS])
def test_every_error_reason_with_its_status(title: str, domain: str, module: Any) -> None:
    heading = f"{title}: domain `{domain}`, `{module.DESCRIPTOR.package}.ErrorReason`"
    rows = INTEGRATOR.table(heading)
    reasons = module.ErrorReason.DESCRIPTOR.values
    assert [f"ERROR_REASON_{bare(row[0])}" for row in rows] == [r.name for r in reasons if r.number]
    codes = _codes(domain)
    for reason, status, meaning, _ in rows:
        sent = codes.get(bare(reason), set())
        assert {code.name for code in sent} <= {bare(status)}, reason
        assert sent or "not sent today" in meaning, f"no error of the code has the reason {reason}"


def test_every_wait_condition_and_who_can_clear_it() -> None:
    rows = OPERATOR.table("### A queued job waits on")
    assert [bare(row[0]) for row in rows] == list(numbers_by_short_name(job_pb2.WaitCondition.DESCRIPTOR))
    for row in rows:
        assert row[2] == _who_can_clear(bare(row[0])), row[0]


def _who_can_clear(condition: str) -> str:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    wait = Wait(WaitCondition(condition), at, "")
    return job_message(Job("id", "run", "EQ", "default", enqueued=at), [wait]).waiting_on[0].who_can_clear


def test_every_state_of_a_job() -> None:
    states = [bare(row[0]) for row in OPERATOR.table("### States of a job")]
    assert states == list(numbers_by_short_name(job_pb2.JobState.DESCRIPTOR))


def test_every_failure_kind() -> None:
    kinds = [bare(row[0]) for row in OPERATOR.table("### A failed job says")]
    assert kinds == list(numbers_by_short_name(job_pb2.FailureKind.DESCRIPTOR))


def test_every_rule_and_whether_it_can_be_overridden() -> None:
    rows = {bare(row[0]): row[2] for row in OPERATOR.table("### The rules")}
    assert list(rows) == [short_name(finding_pb2.Rule.DESCRIPTOR, n) for n in finding_pb2.Rule.values() if n]
    assert rows == {rule.value: "yes" if rule.can_be_overridden else "no" for rule in Rule}


def test_every_state_and_hold_of_a_staged_run() -> None:
    states = [bare(row[0]) for row in OPERATOR.table("## Instruments that push their runs")]
    assert states == [state.value for state in StagingState]
    assert all(f"\n| `{hold.value}` | " in OPERATOR.text for hold in StagingHold)


def test_every_method_and_its_roles() -> None:
    groups = {
        "readers": READERS,
        "operators": OPERATORS,
        "administrators": ADMINS,
        "those who follow secrets": secrets_servicer.FOLLOWERS,
    }
    named = {row[0]: frozenset(bare(role) for role in row[1].split(", ")) for row in INTEGRATOR.table("### Roles")}
    assert named == {name: frozenset(role.value for role in roles) for name, roles in groups.items()}
    rows = {bare(row[0]): groups[row[1]] for row in INTEGRATOR.table("### Methods and who may call them")}
    assert rows == {f"{s.full_name}/{method}": roles for s in _published() for method, roles in s.roles.items()}


def _published() -> Sequence[PublishedService]:
    """What the three services publish. Nothing is called, so nothing is needed behind the servicers."""
    nothing = cast(Any, None)
    draining = asyncio.Event()
    log = publish_event_log(nothing, nothing, nothing, draining)
    return (
        jobs_servicer.publish(jobs_servicer.SyncServicer.__new__(jobs_servicer.SyncServicer)),
        equipment_servicer.publish(EquipmentServicer.__new__(EquipmentServicer)),
        runs_servicer.publish(nothing, nothing),
        problems_servicer.publish(nothing, nothing, nothing),
        staging_servicer.publish(staging_servicer.StagingServicer("", nothing, nothing)),
        lims_servicer.publish(nothing, nothing),
        secrets_servicer.publish(nothing, nothing, nothing),
        log,
    )


def test_the_configuration_and_its_overrides(tmp_path: Path) -> None:
    example, *_ = CLUSTER.blocks("yaml")
    path = tmp_path / "labferry.yaml"
    path.write_text(example, encoding="utf-8")
    assert load_configuration(path, {}).settings.equipment[0].id == "CONFOCAL_01"
    for key, override in CLUSTER.table("## Configuration"):
        variable, _, value = bare(override).partition("=")
        settings = load_configuration(path, {variable: value}).settings.model_dump(mode="json")
        for part in re.findall(r"[a-z_]+|\d+", bare(key)):
            settings = settings[int(part) if part.isdecimal() else part]
        assert str(settings) == value


def test_the_configuration_of_engines_that_share_a_log(tmp_path: Path) -> None:
    one, _, shared = (yaml.safe_load(block) for block in CLUSTER.blocks("yaml"))
    path = tmp_path / "labferry.yaml"
    path.write_text(yaml.safe_dump({**one, **shared}), encoding="utf-8")
    settings = load_configuration(path, {}).settings
    assert settings.blobs_of("sync_engine") == Path("/mnt/labferry-evidence/sync_engine")
    assert settings.transfer.lease_seconds == 30


def test_the_configuration_beyond_one_machine(tmp_path: Path) -> None:
    one, beyond, _ = (yaml.safe_load(block) for block in CLUSTER.blocks("yaml"))
    path = tmp_path / "labferry.yaml"
    path.write_text(yaml.safe_dump({**one, **beyond}), encoding="utf-8")
    settings = load_configuration(path, {}).settings
    assert settings.tls is not None
    callers = settings.tls.callers_by_name()
    assert callers["monitoring.lab"] == Caller("monitoring", frozenset({Role.VIEWER}))
    assert settings.reached_at("sync_engine") == "sync.lab:7403"
    del beyond["tls"]
    path.write_text(yaml.safe_dump({**one, **beyond}), encoding="utf-8")
    with pytest.raises(ConfigurationError, match="never travel in plaintext"):
        load_configuration(path, {})


def test_what_the_targets_do_whose_commands_are_tested_elsewhere() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for recipe in ("(PY) -m cli.demo", "labferry up --config", "(PY) -m pytest "):
        assert recipe in makefile


@pytest.mark.parametrize("name", pages())
def test_commands_that_are_named_in_a_sentence_exist(name: str) -> None:
    for words in re.findall(r"`labferry ([a-z][a-z -]*)", Page.read(name).text):
        command: Any = get_command(app)
        for word in words.split():
            if not hasattr(command, "commands"):
                break
            assert word in command.commands, f"labferry {words}"
            command = command.commands[word]


def test_every_make_target() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):.*##", makefile, re.MULTILINE)) - {"help"}
    assert {bare(row[0]) for row in DEVELOPER.table("### Make targets")} == targets


def test_every_folder_of_the_layout() -> None:
    named = {bare(row[0]) for row in DEVELOPER.table("## Layout")}
    assert all((REPOSITORY / folder).is_dir() for folder in named)
    for parent in ("libs", "services", "services/sync_engine"):
        for folder in (REPOSITORY / parent).iterdir():
            if folder.is_dir() and not folder.name.startswith("__"):
                path = f"{folder.relative_to(REPOSITORY)}/"
                assert any(name.startswith(path) for name in named), path


def test_the_canonical_bytes() -> None:
    fields = DEVELOPER.table("## The hash chain")
    assert len(fields) == 15
    assert f"`{LAYOUT.decode()}`" in fields[0][1]


def test_the_checker_has_at_most_forty_lines() -> None:
    assert len(DEVELOPER.scripts()["check_log.py"].splitlines()) <= 40


def test_the_fields_of_a_checkpoint() -> None:
    fields = [bare(row[0]) for row in AUDITOR.table("## Checkpoints")]
    key = Ed25519PrivateKey.generate()
    assert fields == list(json.loads(to_line(sign(Checkpoint("", 0, b"", "", "", 0), key))))
    assert len(AUDITOR.scripts()["check_checkpoints.py"].splitlines()) <= 40
