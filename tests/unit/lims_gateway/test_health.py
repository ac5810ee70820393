"""CheckHealth never raises for a LIMS, and its latency is that of the whole check."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any, cast

import pytest
import structlog

from libs.service_kit.errors import LabferryError
from services.lims_gateway.projects.directories import Directories
from services.lims_gateway.projects.directory import Directory, KeptCopies
from services.lims_gateway.projects.upstream import LimsUser
from tests.unit.lims_gateway.test_outages import ENDPOINT, FAILURES, StandIn


class Lagging(StandIn):
    """Answers, or fails, only when it is let go."""

    def __init__(self, failure: LabferryError | None) -> None:
        super().__init__()
        self.failure = failure
        self.go = asyncio.Event()

    async def current_user(self) -> LimsUser:
        await self.go.wait()
        if self.failure is not None:
            raise self.failure
        return LimsUser(1, "a@b")


@pytest.mark.parametrize("failure", [None, *FAILURES.values()], ids=["up", *FAILURES])
async def test_the_latency_is_that_of_the_whole_check_and_the_reason_that_of_the_failure(
    failure: LabferryError | None,
) -> None:
    lims = Lagging(failure)
    copies = KeptCopies(cast(Any, None), cast(Any, None), None)
    directory = Directory(ENDPOINT, lims, copies, timedelta(1), structlog.get_logger())
    checking = asyncio.create_task(Directories((directory,)).health(None))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    began = time.perf_counter()
    while time.perf_counter() - began < 0.02:
        await asyncio.sleep(0)
    lims.go.set()
    report = await checking
    assert report.latency_ms >= 20
    assert (report.ok, report.reason) == (failure is None, "" if failure is None else failure.message)


async def test_without_a_lims_too() -> None:
    report = await Directories(()).health(None)
    assert (report.ok, "no LIMS is configured" in report.reason, report.latency_ms >= 0) == (False, True, True)
