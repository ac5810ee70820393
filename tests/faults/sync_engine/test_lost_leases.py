"""Work that ended because its lease was lost, and that nobody else has taken, goes on by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from services.sync_engine.jobs.job import JobState
from services.sync_engine.jobs.ownership import SoleOwnership
from services.sync_engine.transfer.transfer_control import StopReason
from tests.faults.sync_engine.engine_parts import RUN, TEST, engine_parts

EQUIPMENT = "CONFOCAL_01"


class Lost(SoleOwnership):
    """A lease that ends in the middle of a step, where no append tells of it."""

    lost = False

    def holds(self, job_id: str) -> bool:
        return not self.lost


async def test_a_verification_that_ended_with_its_lease_is_looked_at_again(tmp_path: Path) -> None:
    mine = Lost()
    async with engine_parts(tmp_path, owned=lambda store: mine) as parts:
        (parts.here / "a").write_bytes(b"pixels")
        transport: Any = parts.bench.destinations[EQUIPMENT][0].transport
        verify = transport.verify

        def losing(*arguments: Any, **fields: Any) -> Any:
            mine.lost = True
            fields["control"].stop(StopReason.LEASE_LOST)
            return verify(*arguments, **fields)

        transport.verify = losing
        await parts.enqueue.run(RUN, TEST, None)
        (job,) = await parts.bench.jobs_of_run(RUN)
        end = await parts.runner.step(job.job_id)
        (job,) = await parts.bench.jobs_of_run(RUN)
        assert (job.state, end.revision) == (JobState.AWAITING_VERIFY, job.revision)
        assert end.again is not None, "no event comes"
        transport.verify, mine.lost = verify, False
        await parts.bring()
        (job,) = await parts.bench.jobs_of_run(RUN)
        assert job.sealed
