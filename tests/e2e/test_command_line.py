"""The CLI as an operator uses it: real commands, real services; tables for people, JSON for programs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.e2e.terminal import BIN, INVALID, NO, NOT_FOUND, PRECONDITION, UNAVAILABLE, Operator


async def test_the_main_job_on_the_command_line(operator: Operator) -> None:
    run = operator.site.make_run({"a.tif": b"x" * 5000, "{{ operator }}.txt": b"y"})
    blocked = await operator("run", "queue", run)
    assert (blocked.status, blocked.out.split()[0]) == (NO, "blocked")
    assert "leftover_jinja_marker" in blocked.out
    found = await operator("problems", "--run", run, "-o", "json")
    assert found.status == NO
    assert found.json[0]["rule"] == "leftover_jinja_marker"
    added = await operator(
        "override", "add", run, "leftover_jinja_marker", "--operator", "asmith", "--reason", "meant", "-o", "json"
    )
    assert added.json["active"] is True
    queued = await operator("run", "queue", run, "-o", "json")
    assert queued.json["outcome"] == "queued"
    watched = await operator("job", "watch", "--run", run)
    assert watched.status == 0
    assert "verified" in watched.out
    shown = await operator("run", "show", run, "-o", "json")
    assert (shown.json["sync_status"], shown.json["jobs"][0]["sealed"]) == ("synced", True)
    verified = await operator("run", "verify", run, "-o", "json")
    assert (verified.status, verified.json[0]["passed"], verified.json[0]["matched"]) == (0, True, 2)
    (operator.site.at_nas(run) / "a.tif").write_bytes(b"x" * 4999 + b"y")
    broken = await operator("run", "verify", run)
    assert broken.status == NO
    assert "differing: a.tif" in broken.err
    listed = await operator("job", "list", "--state", "verified", "-o", "json")
    assert [j["run"] for j in listed.json] == [run]
    again = await operator("run", "queue", run, "-o", "json")
    assert again.json["outcome"] == "already_synced"
    revoked = await operator(
        "override", "revoke", run, added.json["id"], "--operator", "asmith", "--reason", "no longer"
    )
    assert revoked.status == 0
    entries = await operator("override", "list", run, "-o", "json")
    assert [e["active"] for e in entries.json] == [False, False]
    events = await operator("events", "--stream", f"run-{run}", "-o", "json")
    types = [json.loads(line)["type"] for line in events.out.splitlines()]
    assert types[0] == "sync.run.enqueue_blocked.v1"
    assert types[-1] == "sync.run.override_revoked.v1"
    queued_event = next(
        json.loads(row) for row in (await operator("events", "-o", "json")).out.splitlines() if "job.copied" in row
    )
    assert queued_event["payload"]["file_count"] == 2
    nothing = await operator("job", "watch", "--run", run.replace("14-32", "23-59"))
    assert nothing.status == NO
    assert "no such job" in nothing.err
    checked = await operator("log", "verify")
    assert checked.status == 0
    assert checked.out.startswith("intact: ")
    rebuilt = await operator("log", "rebuild", "-o", "json")
    assert not any(p["differences"] for p in rebuilt.json["projections"])


async def test_events_follow_live_until_interrupted(operator: Operator) -> None:
    run = operator.site.make_run()
    process = await asyncio.create_subprocess_exec(
        # A shell starts background jobs with SIGINT ignored, and every child inherits that.
        *("env", "--default-signal=INT", str(BIN / "labferry"), "events", "--follow", "-o", "json"),
        env={**os.environ, "LABFERRY_CONFIG": str(operator.site.lab.folder / "labferry.yaml")},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert json.loads(await process.stdout.readline())["type"] == "log.store_created.v1"
    await operator("run", "queue", run)
    assert json.loads(await process.stdout.readline())["type"] == "sync.job.queued.v1"
    process.send_signal(signal.SIGINT)
    assert await process.wait() == 130


@pytest.mark.parametrize("command", [("events",), ("events", "-o", "json"), ("job", "list"), ("version",)])
async def test_output_that_a_disk_cannot_take_is_said_in_a_line(operator: Operator, command: Sequence[str]) -> None:
    with open("/dev/full", "wb") as full:
        process = await asyncio.create_subprocess_exec(
            *(str(BIN / "labferry"), *command),
            env={**os.environ, "LABFERRY_CONFIG": str(operator.site.lab.folder / "labferry.yaml")},
            stdout=full,
            stderr=asyncio.subprocess.PIPE,
        )
        _, err = await process.communicate()
    assert (process.returncode, err) == (4, b"the output could not be written: No space left on device\n")


async def test_secrets_go_in_and_never_come_out(operator: Operator) -> None:
    value = "canary-4711-password"
    stored = await operator("secret", "set", "lims", given=value + "\n")
    assert stored.status == 0
    listed = await operator("secret", "list", "-o", "json")
    assert [s["username"] for s in listed.json] == ["lims"]
    again = await operator("secret", "set", "lims", "--rotate-by", "2020-01-31", given=value + "\n")
    assert "replaced, version 2" in again.err
    assert "2020-01-31T00:00:00Z OVERDUE" in (await operator("secret", "list")).out
    async with asyncio.timeout(60):
        # The engine is told a moment later.
        while "secret_rotation_overdue" not in (await operator("problems")).out:
            pass
    moved = await operator("secret", "rotate-by", "lims", "2199-01-31", "-o", "json")
    assert (moved.json["rotate_by"], moved.json["version"]) == ("2199-01-31T00:00:00Z", 2)
    versions = await operator("secret", "versions", "lims", "-o", "json")
    assert [(v["version"], v["set_by"]) for v in versions.json] == [(2, "operator-1"), (1, "operator-1")]
    status = await operator("secret", "status", "-o", "json")
    assert (status.json["backend"], status.json["sealed"]) == ("encrypted_file", False)
    assert (await operator("secret", "seal")).status == 0
    sealed = await operator("secret", "set", "lims", given="another\n")
    assert sealed.status == PRECONDITION
    wrong = await operator("secret", "unseal", given="a wrong passphrase\n")
    assert wrong.status == 64 + 7
    assert "WRONG_PASSPHRASE" in wrong.err
    right = operator.site.lab.passphrase_file.read_text()
    assert (await operator("secret", "unseal", given=right + "\n")).status == 0
    deleted = await operator("secret", "delete", "lims", "--reason", "moved")
    assert deleted.status == 0
    for said in (stored, listed, status, sealed, wrong, deleted):
        assert value not in said.out + said.err


async def test_every_error_is_one_clear_one_with_its_status(operator: Operator, tmp_path: Path) -> None:
    unknown = await operator("run", "show", "CONFOCAL_01/P/Runs/Run_2030-01-01T00-00/")
    assert unknown.status == NOT_FOUND
    assert "reason: RUN_NOT_FOUND (sync.labferry)" in unknown.err
    assert unknown.out == ""
    climbing = await operator("run", "queue", "CONFOCAL_01/../../etc")
    assert climbing.status == INVALID
    projects = await operator("project", "list")
    assert projects.status == UNAVAILABLE
    assert "labferry up" in projects.err
    usage = await operator("job", "list", "--state", "sleeping")
    assert usage.status == 2
    assert "queued" in usage.err
    missing = await operator("run", "show", "x", "--config", "/nowhere/labferry.yaml")
    assert missing.status == 3
    token = await operator("run", "show", "x", "--token-file", "/nowhere/token")
    assert token.status == 3
    for content in (b"", b"two words", b"two\nlines", "größe".encode()):
        (tmp_path / "token").write_bytes(content)
        token = await operator("run", "show", "x", "--token-file", str(tmp_path / "token"))
        assert (token.status, "it doesn't hold one token" in token.err) == (3, True)
    misspelt = await operator("job", "cancel", "--equipment", "CONFOCAL_1", "--reason", "emergency")
    assert misspelt.status == NOT_FOUND
    helped = await operator("run", "queue", "--help")
    assert "Example: labferry run queue" in helped.out
    assert "64 + the gRPC status" in (await operator("--help")).out


async def test_names_of_files_can_not_rewrite_the_terminal(operator: Operator) -> None:
    run = operator.site.make_run({b"\x1b[2Jcleared [red]x[bold].txt": b"1"})
    blocked = await operator("run", "queue", run)
    assert blocked.status == NO
    assert "\x1b" not in blocked.out
    assert "[red]x[bold]" in blocked.out


@pytest.mark.parametrize("command", [("job", "list"), ("up",)])
async def test_without_a_configuration_every_command_says_where_it_looks(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(str(BIN / "labferry"), *command),
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if not k.startswith("LABFERRY_")},
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await process.communicate()
    assert process.returncode == 3
    assert err.decode().startswith("no configuration: give --config FILE")
