"""A verified run that changed here: the refusal says what to type for each file, and `why` what it doesn't look for."""

from __future__ import annotations

import asyncio
import json
import os
import shlex

from tests.e2e.terminal import BIN, NO, Operator
from tests.integration.sync_engine.running_engine import Site, new_site, running_engine, same_tree

WHO = {"NAME": "asmith", "WHY": "recalibrated"}


def _commands(out: str) -> list[list[str]]:
    """What a refusal says to type, as a shell takes it."""
    lines = [line.split("$ ", 1)[1] for line in out.splitlines() if "$ labferry run accept" in line]
    return [[WHO.get(word, word) for word in shlex.split(line)][1:] for line in lines]


async def test_a_refusal_has_a_ready_command_for_each_changed_file(operator: Operator) -> None:
    site = operator.site
    run = site.make_run({"it's one.tif": b"1", "gone.tif": b"2", "kept.tif": b"3", "-dash": b"4"})
    await operator("run", "queue", run)
    assert (await operator("job", "watch", "--run", run)).status == 0
    (site.local(run) / "it's one.tif").write_bytes(b"changed")
    (site.local(run) / "gone.tif").unlink()
    (site.local(run) / "-dash").write_bytes(b"changed")
    blocked = await operator("run", "queue", run)
    assert (blocked.status, blocked.out.split()[0]) == (NO, "blocked")
    commands = _commands(blocked.out)
    assert [c[-1] if "--" in c else c[3] for c in commands] == ["-dash", "gone.tif", "it's one.tif"]
    assert not any("--destination" in command for command in commands)
    changed = (await operator("run", "queue", run, "-o", "json")).json["changed_files"]
    assert [(c["file"]["path"], c["destinations"]) for c in changed] == [
        ("-dash", []),
        ("gone.tif", []),
        ("it's one.tif", []),
    ]
    for command in commands:
        assert (await operator(*command)).status == 0
    assert (await operator("run", "queue", run)).status == 0
    assert (await operator("job", "watch", "--run", run)).status == 0
    assert (site.at_nas(run) / "it's one.tif").read_bytes() == b"changed"


async def test_a_command_can_be_typed_whatever_the_name(operator: Operator) -> None:
    site = operator.site
    name = b"\xff\n\x1b[2J'\\.tif"
    run = site.make_run({name: b"1"})
    meant = ("--operator", "asmith", "--reason", "meant")
    assert (await operator("override", "add", run, "illegal_filesystem_character", *meant)).status == 0
    await operator("run", "queue", run)
    assert (await operator("job", "watch", "--run", run)).status == 0
    with open(os.fsencode(site.local(run)) + b"/" + name, "wb") as file:
        file.write(b"2")
    (line,) = [x for x in (await operator("run", "queue", run)).out.splitlines() if "$ labferry run accept" in x]
    assert line.isascii() and line.isprintable()
    command = line.split("$ ", 1)[1].replace("NAME", "asmith").removeprefix("labferry ")
    # Only a shell knows what it means.
    shell = await asyncio.create_subprocess_exec(
        *("bash", "-c", f"{BIN}/labferry {command}"),
        env={**os.environ, "LABFERRY_CONFIG": str(site.lab.folder / "labferry.yaml")},
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await shell.communicate()
    assert shell.returncode == 0, err
    assert (await operator("run", "queue", run)).status == 0


async def test_a_refusal_names_the_destinations_that_hold_the_old_content() -> None:
    async with new_site() as site:
        _two_destinations(site)
        run = site.make_run({"a.tif": b"first"})
        away = site.nas(destination="far").with_name("away")
        site.nas(destination="far").rename(away)
        operator = Operator(site)
        async with running_engine(site) as engine:
            near, far = (await engine.enqueue(run)).jobs
            await engine.until_sealed(near.job_id)
            (site.local(run) / "a.tif").write_bytes(b"second")
            away.rename(site.nas(destination="far"))
            await engine.until_sealed(far.job_id)
            blocked = await operator("run", "queue", run)
            (command,) = _commands(blocked.out)
            assert command[command.index("--destination") + 1] == "near"
            (site.local(run) / "a.tif").write_bytes(b"third")
            each = _commands((await operator("run", "queue", run)).out)
            assert sorted(command[command.index("--destination") + 1] for command in each) == ["far", "near"]
            details = [
                f["rule_detail"] for f in (await operator("run", "queue", run, "-o", "json")).json["blocking_findings"]
            ]
            assert sorted(detail.rsplit(" ", 1)[1] for detail in details) == ["far.", "near."]
            for command in each:
                assert (await operator(*command)).status == 0
            for job in (await engine.enqueue(run)).jobs:
                await engine.until_sealed(job.job_id)
            same_tree(site.local(run), site.at_nas(run, destination="near"))
            same_tree(site.local(run), site.at_nas(run, destination="far"))


def _two_destinations(site: Site) -> None:
    transports = {n: {"type": "mounted", "path": str(site.nas(destination=n))} for n in ("near", "far")}
    for name in transports:
        site.nas(destination=name).mkdir(parents=True)
    site.equip(destinations=[{"name": n, "transport": t} for n, t in transports.items()])


async def test_why_of_a_proven_run_says_what_it_does_not_look_for(operator: Operator) -> None:
    site = operator.site
    run = site.make_run()
    await operator("run", "queue", run)
    assert (await operator("job", "watch", "--run", run)).status == 0
    (site.local(run) / "a.tif").write_bytes(b"changed since")
    said = await operator("why", run, "-o", "json")
    (answer,) = said.json
    assert (said.status, answer["condition"]) == (0, "done")
    (job,) = (await operator("job", "list", "--run", run, "-o", "json")).json
    assert f"matched at {job['verified_time'][:19]}Z" in answer["detail"], json.dumps(answer)
    assert "not looked for" in answer["detail"]
    looks, queues = answer["to_do"][1:]
    told = await operator(*shlex.split(looks)[1:])
    assert "a.tif" in told.out + told.err
    assert _commands((await operator(*shlex.split(queues)[1:])).out)
