"""Which of the jobs that are watched must end before the watching does, and how it ends. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from labferry.sync.v1 import job_pb2

_GOOD_ENDS = {job_pb2.JOB_STATE_VERIFIED, job_pb2.JOB_STATE_CLEANUP_ELIGIBLE, job_pb2.JOB_STATE_CLEANED}
_BAD_ENDS = {job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED}


def is_done(job: job_pb2.Job) -> bool:
    return job.state in _BAD_ENDS or (job.state in _GOOD_ENDS and job.sealed)


class WatchedJobs:
    """`present` are the jobs that are there at first, in the order they were queued; the stream brings each of them
    again, and others that are queued later. Of a run's jobs to one destination the last counts, or each."""

    def __init__(self, present: Iterable[job_pb2.Job], *, each_counts: bool) -> None:
        self.jobs: dict[str, job_pb2.Job] = {}
        self._each_counts = each_counts
        self._last: dict[tuple[str, ...], str] = {}
        self._open: set[str] = set()
        self._unseen: set[str] = set()
        for job in present:
            self.take(job)
        self._unseen = set(self.jobs)

    def take(self, job: job_pb2.Job) -> None:
        """A job as it stands now."""
        key = (job.job_id,) if self._each_counts else (job.run, job.destination)
        if job.job_id not in self.jobs:
            self._open.discard(self._last.get(key, ""))
            self._last[key] = job.job_id
        self.jobs[job.job_id] = job
        self._unseen.discard(job.job_id)
        if self._last[key] == job.job_id and not is_done(job):
            self._open.add(job.job_id)
        else:
            self._open.discard(job.job_id)

    @property
    def over(self) -> bool:
        """Every job that was there was seen in the stream, and each one that counts has ended."""
        return not self._unseen and not self._open

    @property
    def failed(self) -> bool:
        """Whether one that counts failed, or was cancelled."""
        return any(self.jobs[job_id].state in _BAD_ENDS for job_id in self._last.values())
