"""ListStagedRuns: what the log says of staged runs, with what the last look saw of those that are still arriving."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from libs.event_log.projection import ProjectionRunner
from libs.run_tree.ingest_record import StagingState
from services.sync_engine.staging.intake import Intake
from services.sync_engine.staging.read_model import page_token, place_of, staged_runs_in, staged_runs_unended
from services.sync_engine.staging.staged_run import StagedRun
from services.sync_engine.staging.staging_folder import SightedEquipment


@dataclass(frozen=True, slots=True)
class StagedPage:
    """`next_token` empty: the last page. `problem` empty: this engine drives the staging root."""

    runs: Sequence[StagedRun]
    next_token: str
    equipment: Sequence[SightedEquipment]
    problem: str


class StagedList:
    """`intake` None: staging is off."""

    def __init__(self, projections: ProjectionRunner, intake: Intake | None) -> None:
        self._projections = projections
        self._intake = intake

    async def page(self, states: Collection[StagingState], size: int, token: str) -> StagedPage:
        """Without `states`, those that aren't cleared or that somebody has to look at. InvalidRequestError for a token
        that was never given out."""
        after, limit = place_of(token), size + 1
        records = await self._projections.query(
            lambda c: (
                staged_runs_in(c, states, after=after, limit=limit)
                if states
                else staged_runs_unended(c, after=after, limit=limit)
            )
        )
        shown = [self._with_counts(record) for record in records[:size]]
        following = page_token(shown[-1].run) if len(records) > size else ""
        if self._intake is None:
            return StagedPage(shown, following, (), "no staging root is configured")
        return StagedPage(shown, following, self._intake.seen.equipment, self._intake.driver.problem)

    def _with_counts(self, record: StagedRun) -> StagedRun:
        if record.state is not StagingState.STAGING or self._intake is None:
            return record
        for sighted in self._intake.seen.runs:
            if sighted.identity == record.run and sighted.arrival is not None:
                arrival = sighted.arrival
                return replace(record, file_count=arrival.file_count, byte_count=arrival.byte_count)
        return record
