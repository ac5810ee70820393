"""What a crash in the middle of a deletion left: looked at once at the start, and recorded (SPEC §4)."""

from __future__ import annotations

from collections.abc import Iterable

from libs.event_log.blob_store import BlobError
from libs.event_log.store import EventStoreError
from libs.service_kit.errors import LabferryError
from services.sync_engine.cleanup.execution import Execution
from services.sync_engine.jobs.workbench import Workbench


async def finish_interrupted_cleanups(bench: Workbench, execution: Execution, runs: Iterable[str]) -> None:
    """Deletes nothing. A run that can't be reached or told of now, or that another engine works on, keeps its open
    ticket: whoever cleans it next begins with that."""
    for run in runs:
        record = await bench.log.run(run)
        if record.open_cleanup is None:
            continue
        lead = await bench.log.job(record.open_cleanup.evidence[0][1])
        if lead is None:
            continue
        try:
            located = await bench.locate(run)
            async with bench.owned.over(lead.job_id, lead.equipment_id) as mine:
                end = await execution.interrupted(located, lead) if mine else None
                if end is not None:
                    await execution.ends.record_now(end)
        except (LabferryError, EventStoreError, BlobError) as error:
            bench.logger.warning("interrupted_cleanup_not_recorded", run=run, problem=str(error))
