"""Recording and revoking overrides: an event first, then the file (SPEC §2 overrides)."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from labferry.events.v1 import run_events_pb2 as events
from libs.event_log.event import RecordedEvent
from libs.event_log.store import RequestKey
from services.sync_engine.engine_log import Cause, EngineLog, decided_anew, run_change
from services.sync_engine.event_types import EVENT_TYPES
from services.sync_engine.runs.creation_keeper import CreationKeeper
from services.sync_engine.runs.creation_projection import CreationFiles
from services.sync_engine.runs.location import LocatedRun, RunLocator
from services.sync_engine.runs.run import RULES, LoggedOverride, RunRecord, check_revocable, evolve
from services.sync_engine.validation.finding import Rule


class OverrideCommands:
    """The two commands. Both answer with the entry as it stands in the log."""

    def __init__(
        self,
        log: EngineLog,
        files: CreationFiles,
        keeper: CreationKeeper,
        locator: RunLocator,
        clock: Callable[[], datetime],
    ) -> None:
        self._log = log
        self._files = files
        self._keeper = keeper
        self._locator = locator
        self._clock = clock

    async def record(
        self,
        run: str,
        rule: Rule,
        operator: str,
        reason: str,
        expires: datetime | None,
        cause: Cause,
        request: RequestKey | None,
    ) -> LoggedOverride:
        def decide(record: RunRecord) -> Sequence[Message]:
            event = events.RunOverrideRecorded(
                run=record.run,
                override_id=str(uuid.uuid4()),
                problem_class=RULES.to_proto(rule),
                operator=operator,
                recorded_at=_whole_seconds(self._clock()),
                reason=reason,
            )
            if expires is not None:
                event.expires_at.CopyFrom(_whole_seconds(expires))
            return (event,)

        return await self._append(run, decide, cause, request)

    async def revoke(
        self, run: str, override_id: str, operator: str, reason: str, cause: Cause, request: RequestKey | None
    ) -> LoggedOverride:
        """OverrideNotFoundError, OverrideNotRevocableError."""

        def decide(record: RunRecord) -> Sequence[Message]:
            check_revocable(record, override_id)
            return (
                events.RunOverrideRevoked(
                    run=record.run,
                    tombstone_id=str(uuid.uuid4()),
                    override_id=override_id,
                    operator=operator,
                    recorded_at=_whole_seconds(self._clock()),
                    reason=reason,
                ),
            )

        return await self._append(run, decide, cause, request)

    async def _append(
        self,
        run: str,
        decide: Callable[[RunRecord], Sequence[Message]],
        cause: Cause,
        request: RequestKey | None,
    ) -> LoggedOverride:
        if request is not None:
            earlier = await self._log.store.find_request(request)
            if earlier is not None:
                return _entry_of(earlier.events[0])
        located = await asyncio.to_thread(self._locator.locate, run)
        # A run whose file can't be used is refused before anything is recorded.
        await self._files.import_foreign(located)
        result = await self._append_decided(located, decide, cause, request)
        await self._keeper.project(located)
        return _entry_of(result)

    async def _append_decided(
        self,
        located: LocatedRun,
        decide: Callable[[RunRecord], Sequence[Message]],
        cause: Cause,
        request: RequestKey | None,
    ) -> RecordedEvent:
        async def attempt() -> RecordedEvent:
            record = await self._log.run(located.identity)
            result = await self._log.append(cause, run_change(record, *decide(record)), request=request)
            return result.events[0]

        return await decided_anew(attempt)


def _entry_of(event: RecordedEvent) -> LoggedOverride:
    payload = EVENT_TYPES.decode(event)
    if payload is None:
        raise ValueError(f"event {event.position} holds no override")
    return evolve(RunRecord(""), payload).overrides[0]


def _whole_seconds(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment.replace(microsecond=0))
    return stamp
