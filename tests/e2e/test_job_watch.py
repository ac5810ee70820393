"""labferry job watch: it ends with the jobs that count, not with the first that it hears of."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable

from tests.e2e.terminal import BIN, NO, Operator


async def _job_id(operator: Operator, run: str) -> str:
    """Queues the run."""
    return str((await operator("run", "queue", run, "-o", "json")).json["job"]["job_id"])


async def _held(operator: Operator) -> None:
    held = await operator("equipment", "pause", "CONFOCAL_01", "--reason", "service")
    assert held.status == 0


async def _go_on(operator: Operator) -> None:
    assert (await operator("equipment", "resume", "CONFOCAL_01", "--reason", "done")).status == 0


async def _watched(
    operator: Operator, job_id: str, *arguments: str, meanwhile: Callable[[], Awaitable[None]]
) -> tuple[int, list[tuple[str, str]]]:
    """`job watch` with these arguments, its exit status and what it showed. `meanwhile` begins when it has shown that
    `job_id`, which is held, is queued."""
    process = await asyncio.create_subprocess_exec(
        *(str(BIN / "labferry"), "job", "watch", *arguments, "-o", "json"),
        env={**os.environ, "LABFERRY_CONFIG": str(operator.site.lab.folder / "labferry.yaml")},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    shown: list[tuple[str, str]] = []
    async with asyncio.timeout(60):
        async for line in process.stdout:
            job = json.loads(line)["job"]
            shown.append((job["job_id"], job["state"]))
            if shown[-1] == (job_id, "queued"):
                break
        await meanwhile()
        async for line in process.stdout:
            job = json.loads(line)["job"]
            shown.append((job["job_id"], job["state"]))
        return await process.wait(), shown


async def test_an_amendment_is_waited_for_though_the_first_job_is_sealed(operator: Operator) -> None:
    run = operator.site.make_run()
    first = await _job_id(operator, run)
    assert (await operator("job", "watch", "--run", run)).status == 0
    for number, scope in enumerate((("--run", run), ("--equipment", "CONFOCAL_01"), ())):
        await _held(operator)
        (operator.site.local(run) / f"late{number}.tif").write_bytes(b"late")
        amendment = await _job_id(operator, run)
        status, shown = await _watched(operator, amendment, *scope, meanwhile=lambda: _go_on(operator))
        assert (status, shown[0], shown[-1]) == (0, (first, "verified"), (amendment, "verified"))


async def test_a_cancelled_job_that_was_queued_anew_decides_nothing_unless_it_is_asked_for(operator: Operator) -> None:
    run = operator.site.make_run()
    await _held(operator)
    cancelled = await _job_id(operator, run)
    assert (await operator("job", "cancel", cancelled, "--reason", "the wrong one")).status == 0
    assert (await operator("job", "watch", "--run", run)).status == NO
    anew = await _job_id(operator, run)
    status, shown = await _watched(operator, anew, "--run", run, meanwhile=lambda: _go_on(operator))
    assert (status, shown[0], shown[-1]) == (0, (cancelled, "cancelled"), (anew, "verified"))
    assert (await operator("job", "watch", anew)).status == 0
    assert (await operator("job", "watch", cancelled, anew)).status == NO


async def test_a_run_queued_meanwhile_is_waited_for_too(operator: Operator) -> None:
    await _held(operator)
    first = await _job_id(operator, operator.site.make_run())
    later = ""

    async def queue_another() -> None:
        nonlocal later
        later = await _job_id(operator, operator.site.make_run(leaf="Run_2026-04-17T15-00"))
        await _go_on(operator)

    status, shown = await _watched(operator, first, meanwhile=queue_another)
    assert (status, dict(shown)[first], dict(shown)[later]) == (0, "verified", "verified")


async def test_a_job_that_is_not_of_the_run_is_no_job_to_wait_for(operator: Operator) -> None:
    run, other = operator.site.make_run(), operator.site.make_run(leaf="Run_2026-04-17T15-00")
    job_id, _ = await _job_id(operator, run), await _job_id(operator, other)
    nothing = await operator("job", "watch", job_id, "--run", other)
    assert (nothing.status, "no such job" in nothing.err) == (NO, True)
