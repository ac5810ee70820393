"""A checkout as a reader has it after `make demo`: the services run with .demo/labferry.yaml, and one run is sealed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import grpc

from cli.demo.made_run import make_run
from cli.demo.stage import EQUIPMENT, LIMS_EMAIL, PORTS, Stage
from labferry.lims.v1 import lims_service_pb2, lims_service_pb2_grpc
from labferry.secrets.v1 import secrets_service_pb2, secrets_service_pb2_grpc
from labferry.sync.v1 import (
    finding_pb2,
    run_service_pb2,
    run_service_pb2_grpc,
    sync_service_pb2,
    sync_service_pb2_grpc,
)
from libs.service_kit.identity import OPERATOR_TOKEN_FILE, ServiceName
from tests.e2e.documentation.pages import REPOSITORY
from tests.e2e.documentation.shell import Shell

BIN = Path(sys.executable).parent
UP = "labferry up --config .demo/labferry.yaml"
"""How the pages start the services, and so how they are started here."""

_RUN_MADE = datetime(2026, 4, 17, 14, 32, tzinfo=UTC)
_PATIENCE = 60.0


@dataclass(frozen=True)
class Workplace:
    """`stage` is its .demo folder."""

    folder: Path
    stage: Stage
    run: str

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("LABFERRY_")}
        # The stand-in for grpcurl first, then the virtual environment, as `export PATH=…` in the pages has it.
        return {**kept, "PATH": f"{self.folder / 'stand-in'}:{BIN}:{kept['PATH']}", "COLUMNS": "200"}

    def literal(self, text: str) -> str:
        """The pages name the demo's ports; here they may be taken, so other ones stand for them."""
        for service, port in PORTS.items():
            text = text.replace(f"127.0.0.1:{port}", self.stage.addresses[service])
        return text

    def shell(self) -> Shell:
        return Shell(self.folder, self.environment)


@contextmanager
def workplace() -> Iterator[Workplace]:
    """Everything up; ended in order, which is checked."""
    folder = Path(tempfile.mkdtemp(prefix="lf-docs-"))
    try:
        for entry in REPOSITORY.iterdir():
            if entry.name not in (".git", ".demo", ".venv"):
                (folder / entry.name).symlink_to(entry)
        (folder / ".venv").symlink_to(sys.prefix)
        (folder / "stand-in").mkdir()
        shutil.copy(Path(__file__).with_name("grpcurl_stand_in.sh"), folder / "stand-in" / "grpcurl")
        stage = replace(Stage.make(folder / ".demo"), addresses={s: _free_address() for s in ServiceName})
        run = make_run(stage.lab, EQUIPMENT, "Cortex Q3 Pilot", _RUN_MADE, "asmith")
        place = Workplace(folder, stage, run)
        with _lims(stage) as endpoint:
            stage.write_configuration(endpoint)
            with _up(place):
                _do_what_the_demo_does(place)
                yield place
    finally:
        shutil.rmtree(folder)


def _free_address() -> str:
    """Below the ports that the system gives to whoever asks for any: nobody gets it before it is listened on."""
    while True:
        address = ("127.0.0.1", random.randrange(20_000, 30_000))
        with socket.socket() as probe, suppress(OSError):
            probe.bind(address)
            return f"{address[0]}:{address[1]}"


@contextmanager
def _lims(stage: Stage) -> Iterator[str]:
    command = [sys.executable, "-m", "cli.demo.lims_server", "--email", LIMS_EMAIL]
    process = subprocess.Popen(
        [*command, "--password-file", str(stage.password_file)], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
    try:
        yield _line_with(process.stdout, "listening on ").removeprefix("listening on ").strip()
    finally:
        process.terminate()
        process.communicate()


@contextmanager
def _up(place: Workplace) -> Iterator[None]:
    process = subprocess.Popen(
        UP.split(), cwd=place.folder, env=place.environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        _line_with(process.stderr, "operator.token")
        # The services log there; a pipe that nobody empties would stop them.
        threading.Thread(target=lambda: deque(process.stderr or (), maxlen=0), daemon=True).start()
        yield
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=_PATIENCE) == 0, "Ctrl-C did not end the services in order"
    finally:
        if process.returncode is None:
            process.kill()
            process.wait()


def _line_with(stream: IO[str] | None, text: str) -> str:
    assert stream is not None
    said = ""
    for line in stream:
        said += line
        if text in line:
            return line
    raise AssertionError(said)


def _do_what_the_demo_does(place: Workplace) -> None:
    """The LIMS's password is stored and its projects were listed; the run was permitted, queued and sealed."""
    token = (place.stage.state / OPERATOR_TOKEN_FILE).read_text(encoding="ascii")
    call: dict[str, Any] = {"metadata": [("authorization", f"Bearer {token}")], "timeout": _PATIENCE}
    with ExitStack() as stack:
        vault, lims, engine = (
            stack.enter_context(grpc.insecure_channel(place.stage.addresses[service]))
            for service in (ServiceName.SECRETS, ServiceName.LIMS_GATEWAY, ServiceName.SYNC_ENGINE)
        )
        password = secrets_service_pb2.SetSecretRequest(username="lims", value=place.stage.lims_password)
        secrets_service_pb2_grpc.SecretsServiceStub(vault).SetSecret(password, **call)
        lims_service_pb2_grpc.LimsServiceStub(lims).ListProjects(lims_service_pb2.ListProjectsRequest(), **call)
        permission = run_service_pb2.RecordOverrideRequest(
            run=place.run, problem_class=finding_pb2.RULE_LEFTOVER_JINJA_MARKER, operator="asmith", reason="meant"
        )
        run_service_pb2_grpc.RunServiceStub(engine).RecordOverride(permission, **call)
        sync = sync_service_pb2_grpc.SyncServiceStub(engine)
        queued = sync.EnqueueRun(sync_service_pb2.EnqueueRunRequest(run=place.run), **call)
        watch = sync.WatchJobs(sync_service_pb2.WatchJobsRequest(job_ids=[queued.job.job_id]), **call)
        assert any(update.job.sealed for update in watch)
        watch.cancel()
