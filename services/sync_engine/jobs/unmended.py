"""What the last repairs of this engine could not put back, and why: for people, and until the copy matches again."""

from __future__ import annotations

from datetime import datetime

from services.sync_engine.jobs.job import Job


class Unmended:
    """Kept in memory: an engine that was started anew knows nothing before it tries again."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[datetime | None, str]] = {}

    def note(self, job: Job, problem: str) -> None:
        """One plain sentence; empty: nothing kept the repair from anything."""
        if problem:
            self._known[job.job_id] = job.verified, problem
        else:
            self._known.pop(job.job_id, None)

    def of(self, job: Job) -> str:
        """Empty when nothing is known, or the copy matched since."""
        verified, problem = self._known.get(job.job_id, (None, ""))
        return problem if verified == job.verified else ""
