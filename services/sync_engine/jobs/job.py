"""The job: the work of bringing one run to one destination, its states, and what it can wait for. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from labferry.sync.v1 import job_pb2, run_pb2
from libs.run_tree.creation_record import SyncStatus
from libs.service_kit.enum_names import ProtoNames
from services.sync_engine.jobs.failure import Failure


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    AWAITING_VERIFY = "awaiting_verify"
    VERIFIED = "verified"
    CLEANUP_ELIGIBLE = "cleanup_eligible"
    CLEANED = "cleaned"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PAUSED = "paused"


class WaitCondition(StrEnum):
    SLOT = "slot"
    BACKOFF = "backoff"
    GATE = "gate"
    DESTINATION_FULL = "destination_full"
    DESTINATION_UNREACHABLE = "destination_unreachable"
    SOURCE_UNSETTLED = "source_unsettled"
    OPERATOR = "operator"
    EQUIPMENT_NOT_CONFIGURED = "equipment_not_configured"
    EQUIPMENT_PAUSED = "equipment_paused"
    CLEANUP_INTERLOCK = "cleanup_interlock"
    SECRETS_UNAVAILABLE = "secrets_unavailable"
    STATE_DISK_FULL = "state_disk_full"


JOB_STATES = ProtoNames(JobState, job_pb2.JobState, "JOB_STATE")
WAIT_CONDITIONS = ProtoNames(WaitCondition, job_pb2.WaitCondition, "WAIT_CONDITION")
SYNC_STATUSES = ProtoNames(SyncStatus, run_pb2.SyncStatus, "SYNC_STATUS")

PROVEN_STATES = frozenset({JobState.VERIFIED, JobState.CLEANUP_ELIGIBLE, JobState.CLEANED})
ENDED_STATES = frozenset({JobState.FAILED, JobState.CANCELLED, JobState.CLEANED})
UNPROVEN_STATES = frozenset({JobState.QUEUED, JobState.RUNNING, JobState.AWAITING_VERIFY})
"""On the way to the proof, and neither held nor ended."""

BEFORE_CLEANUP = "cleanup"
"""Occasion of the reading back right before a deletion: fresh evidence, and no pass that counts (SPEC §4)."""

COPY_IS_ELSEWHERE = "copy_is_elsewhere"
"""The interlock that does not hold when a copy may be the run's own folder."""

SCRUB = "scrub"
"""Occasion of the reading back of a portion of a proven copy."""

AUDIT = "audit"
"""Occasion of a repeated pass over a proven copy."""

REQUEST = "request"
"""Occasion of a pass that somebody asked for."""

READ_AGAIN = frozenset({AUDIT, REQUEST})
"""Occasions of passes that count beside the first."""

REPAIRING = frozenset({AUDIT, SCRUB})
"""Occasions after which what was wrong is put back."""


class Wait(msgspec.Struct, frozen=True):
    """A condition that holds the job back, since when, and when it is looked at again (None: only by an event).

    `pause` is how long `next_try` lay ahead when it was set: no change of the clock makes the wait longer.
    """

    condition: WaitCondition
    since: datetime
    detail: str
    next_try: datetime | None = None
    pause: timedelta | None = None


class Job(msgspec.Struct, frozen=True):
    """The work of bringing one run to one destination, as its events tell it.

    `next_attempt` lay `backoff` ahead when it was set, `failed_at`. `paused_from` is where a paused job goes on.
    `passes`: when the first hundred of the present row of passes matched. `deletion_begun`: cleanup deleted, or was
    about to delete, local files that this job proved, so that one which is missing here is no change.
    `max_stream_bytes`: the largest file of this copy that an operator let be downloaded to be checked; 0: none.
    `differing_blob`: the files that its last verification found differing or missing, until others are sent instead.
    `sealed_overrides`: how many of the run's overrides the sealed creation.json holds.
    `cleanup_interlocks` are those that `cleanup_hold` tells of. `given_up`: files that the last reading found wrong and
    that aren't put back, because they were wrong after that already; the first hundred. `unmended`: what kept the last
    repair of this copy from putting everything back.
    """

    job_id: str
    run: str
    equipment_id: str
    destination: str
    enqueued: datetime
    amendment: int = 0
    amends_job_id: str = ""
    priority: int = 0
    state: JobState = JobState.QUEUED
    revision: int = 0
    attempt: int = 0
    network_failures: int = 0
    tool_failures: int = 0
    mismatches: int = 0
    next_attempt: datetime | None = None
    backoff: timedelta | None = None
    failed_at: datetime | None = None
    paused_from: JobState | None = None
    paused_at: datetime | None = None
    paused_by: str = ""
    pause_reason: str = ""
    swept: bool = False
    failure: Failure | None = None
    wait: Wait | None = None
    landing_blobs: tuple[str, ...] = ()
    differing_blob: str = ""
    manifest_blob: str | None = None
    files_blob: str | None = None
    file_count: int = 0
    byte_count: int = 0
    verify_passes: int = 0
    verified: datetime | None = None
    sealed_status: SyncStatus | None = None
    sealed_overrides: int = 0
    passes: tuple[datetime, ...] = ()
    receipt_blob: str = ""
    cleanup_hold: Wait | None = None
    deletion_begun: bool = False
    max_stream_bytes: int = 0
    cleanup_interlocks: tuple[str, ...] = ()
    given_up: tuple[str, ...] = ()
    unmended: str = ""

    @property
    def sealed(self) -> bool:
        return self.sealed_status is not None

    @property
    def may_be_the_source(self) -> bool:
        """Whether the last cleanup could not tell the run's copies from the run itself."""
        return COPY_IS_ELSEWHERE in self.cleanup_interlocks

    def seal_is_due(self, run_status: SyncStatus, run_overrides: int) -> bool:
        """Proven data whose destination doesn't hold the run's final changing files yet (SPEC §4 sealing). They say its
        status and so many overrides."""
        # A seal brings a new receipt, and none vouches for what was wrong when it was read last: the next pass that
        # matches calls for the seal.
        return self.verify_passes > 0 and self.seal_is_stale(run_status, run_overrides)

    def seal_is_stale(self, run_status: SyncStatus, run_overrides: int) -> bool:
        """As `seal_is_due`, also of a copy that isn't to be sealed before it was read well again."""
        if self.state not in PROVEN_STATES or (self.sealed and run_status is SyncStatus.CLEANED):
            # After cleanup the destination's copy may be the only one: nothing is written there any more.
            return False
        # Nothing but a seal that failed lets proven data wait, and nobody knows how much of it had arrived by then.
        says_it = self.sealed_status is run_status and self.sealed_overrides == run_overrides
        return not says_it or self.wait is not None


class JobStateError(Exception):
    """The job's state does not allow a command."""

    def __init__(self, job: Job, command: str) -> None:
        super().__init__(f"job {job.job_id} is {job.state}; {command} is not possible")
        self.job, self.command = job, command
