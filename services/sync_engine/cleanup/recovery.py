"""What a crash in the middle of a deletion left: looked at once at the start, and recorded (SPEC §4)."""

from __future__ import annotations

from collections.abc import Iterable

from libs.service_kit.errors import LabferryError
from services.sync_engine.cleanup.execution import Execution
from services.sync_engine.jobs.workbench import Workbench


async def finish_interrupted_cleanups(bench: Workbench, execution: Execution, runs: Iterable[str]) -> None:
    """Deletes nothing. A run that can't be reached now, or that another engine works on, keeps its open ticket."""
    for run in runs:
        record = await bench.log.run(run)
        if record.open_cleanup is None:
            continue
        lead = await bench.log.job(record.open_cleanup.evidence[0][1])
        if lead is None:
            continue
        try:
            located = await bench.locate(run)
        except LabferryError as error:
            bench.logger.warning("interrupted_cleanup_not_looked_at", run=run, problem=error.message)
            continue
        async with bench.owned.over(lead.job_id, lead.equipment_id) as mine:
            if mine:
                await execution.finish_interrupted(located, lead)
