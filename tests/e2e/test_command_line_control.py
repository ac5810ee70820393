"""Control on the command line: jobs by one and by scope, equipment, many runs at once, accepted changes."""

from __future__ import annotations

import hashlib
import json

from tests.e2e.terminal import INVALID, NO, NOT_FOUND, PRECONDITION, Operator


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def test_one_job_is_held_moved_up_let_go_and_cancelled(operator: Operator) -> None:
    site = operator.site
    paused = await operator("equipment", "pause", "CONFOCAL_01", "--reason", "service", "-o", "json")
    assert (paused.status, paused.json["paused"], paused.json["pause_reason"]) == (0, True, "service")
    run = site.make_run()
    job_id = (await operator("run", "queue", run, "-o", "json")).json["job"]["job_id"]
    assert "by operator-1" in (await operator("equipment", "list")).out
    held = await operator("job", "pause", job_id, "--reason", "not yet", "-o", "json")
    assert held.json["state"] == "paused"
    moved = await operator("job", "prioritize", job_id, "--priority", "-5", "--reason", "later", "-o", "json")
    assert moved.json["priority"] == -5
    shown = await operator("job", "show", job_id)
    assert "operator-1 paused it: not yet" in shown.out
    assert "operator-1 paused it: not yet" in held.json["waiting_on"][0]["detail"]
    assert "operator-1 paused it: not yet" in (await operator("job", "list")).out
    assert (await operator("job", "show", job_id, "-o", "json")).json["job_id"] == job_id
    assert (await operator("job", "resume", job_id, "--reason", "now", "-o", "json")).json["state"] == "queued"
    cancelled = await operator("job", "cancel", job_id, "--reason", "the wrong one")
    assert cancelled.status == 0
    assert "cancelled" in cancelled.out
    refused = await operator("job", "pause", job_id, "--reason", "again")
    assert refused.status == PRECONDITION
    assert "JOB_STATE" in refused.err
    resumed = await operator("equipment", "resume", "CONFOCAL_01", "--reason", "done", "-o", "json")
    assert resumed.json["paused"] is False
    assert (await operator("equipment", "show", "NOWHERE")).status == NOT_FOUND
    answers = await operator("equipment", "show", "CONFOCAL_01", "-o", "json")
    assert answers.json["destinations"][0]["reachable"] is True
    assert "1 cancelled" in (await operator("equipment", "show", "CONFOCAL_01")).out


async def test_scopes_and_many_runs_in_one_call(operator: Operator) -> None:
    site = operator.site
    await operator("equipment", "pause", "CONFOCAL_01", "--reason", "service")
    runs = [site.make_run(leaf=f"Run_2026-04-17T14-3{n}") for n in range(3)]
    blocked = site.make_run({"{{ x }}": b"1"}, leaf="Run_2026-04-17T15-00")
    queued = await operator("run", "queue", *runs, blocked, "-o", "json", "--request-id", "all-of-them")
    answers = [json.loads(line) for line in queued.out.splitlines()]
    assert (queued.status, [a["outcome"] for a in answers]) == (NO, ["queued"] * 3 + ["blocked"])
    assert [a["run"] for a in answers] == [*runs, blocked]
    unknown = await operator("run", "queue", runs[0], runs[0].replace("14-30", "23-59"))
    assert unknown.status == NOT_FOUND
    assert "RUN_NOT_FOUND" in unknown.err
    assert "already_queued" in unknown.out
    one = await operator("job", "pause", "--run", runs[0], "--reason", "r", "-o", "json")
    assert [j["run"] for j in one.json] == [runs[0]]
    two = await operator("job", "pause", "--equipment", "CONFOCAL_01", "--reason", "r", "-o", "json")
    assert sorted(j["run"] for j in two.json) == runs[1:]
    nothing = await operator("job", "retry", "--all", "--reason", "r")
    assert (nothing.status, nothing.out) == (0, "")
    assert "no job" in nothing.err
    everything = await operator("job", "cancel", "--all", "--reason", "r", "-o", "json")
    assert [j["state"] for j in everything.json] == ["cancelled"] * 3
    for scope in ((), ("--all", "--run", runs[0])):
        assert (await operator("job", "pause", *scope, "--reason", "r")).status == 2
    assert (await operator("job", "pause", "no-uuid", "--reason", "r")).status == INVALID


async def test_changes_are_accepted_as_why_says(operator: Operator) -> None:
    site = operator.site
    run = site.make_run({"our file.tif": b"ours"})
    theirs = site.at_nas(run) / "our file.tif"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"theirs")
    await operator("run", "queue", run)
    assert (await operator("job", "watch", "--run", run)).status == NO
    why = await operator("why", run)
    assert why.status == NO
    command = next(line for line in why.out.splitlines() if "run accept" in line)
    assert f"'our file.tif' --old {_sha(b'theirs')} --new {_sha(b'ours')}" in command
    who = ("--operator", "asmith", "--reason", "theirs was a trial")
    wrong = await operator("run", "accept", run, "our file.tif", "--old", "0" * 64, "--new", _sha(b"ours"), *who)
    assert wrong.status == PRECONDITION
    assert (await operator("run", "accept", run, "our file.tif", "--old", _sha(b"theirs"), *who)).status == 2
    right = ("--old", _sha(b"theirs"), "--new", _sha(b"ours"))
    accepted = await operator("run", "accept", run, "our file.tif", *right, *who, "-o", "json")
    assert [j["state"] for j in accepted.json["rearmed_jobs"]] == ["queued"]
    assert (await operator("job", "watch", "--run", run)).status == 0
    assert theirs.read_bytes() == b"ours"
    (site.local(run) / "our file.tif").unlink()
    removed = await operator("run", "accept", run, "our file.tif", "--old", _sha(b"ours"), "--removed", *who)
    assert removed.status == 0
    assert "run queue" in removed.err
