"""An acceptance counts at a destination until a job that began after it is proven there."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import Message

from labferry.events.v1 import job_events_pb2, run_events_pb2
from libs.event_log.memory_store import MemoryEventStore
from services.sync_engine.engine_log import BY_ITSELF, EngineLog, job_change, new_job_change, run_change
from services.sync_engine.jobs.acceptances import unspent

RUN = "E/P/Runs/Run_1"


class History:
    """A run whose one job was proven, told event by event."""

    def __init__(self) -> None:
        self.log = EngineLog(MemoryEventStore(service="sync_engine", version="0"))

    async def accept(self, name: str, destination: str = "") -> None:
        accepted = run_events_pb2.RunChangeAccepted(run=RUN, destination=destination, path=name)
        await self.log.append(BY_ITSELF, run_change(await self.log.run(RUN), accepted))

    async def queue(self) -> None:
        queued = job_events_pb2.JobQueued(job_id="j", run=RUN, equipment_id="E", destination="near")
        await self.log.append(BY_ITSELF, new_job_change(queued))

    async def tell(self, *payloads: Message) -> None:
        job = await self.log.job("j")
        assert job is not None
        await self.log.append(BY_ITSELF, job_change(job, *payloads))

    async def unspent(self, destination: str = "near") -> Sequence[str]:
        record, proven = await self.log.run(RUN), await self.log.job("j")
        return [change.path.decode() for change in await unspent(self.log, record, destination, proven)]


async def test_what_came_before_the_attempt_that_was_proven_is_spent_and_nothing_else() -> None:
    history = History()
    await history.accept("before the job")
    await history.queue()
    await history.tell(job_events_pb2.JobStarted(attempt=1))
    await history.accept("in its first attempt", "near")
    await history.tell(job_events_pb2.JobRequeued(), job_events_pb2.JobStarted(attempt=2))
    await history.accept("in its last attempt")
    await history.tell(job_events_pb2.JobCopied())
    await history.accept("of another place", "far")
    await history.tell(job_events_pb2.JobVerified())
    await history.accept("since")
    assert await history.unspent() == ["in its last attempt", "since"]


async def test_where_nothing_is_proven_all_that_was_accepted_counts() -> None:
    history = History()
    await history.accept("anywhere")
    await history.accept("there", "far")
    await history.accept("elsewhere", "near")
    assert await history.unspent("far") == ["anywhere", "there"]
