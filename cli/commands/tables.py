"""Rows for what several commands show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cli.json_form import short_name
from cli.output import moment, size
from cli.why import is_copy_wrong
from labferry.sync.v1 import finding_pb2, job_pb2

Rows = tuple[Sequence[str], list[Sequence[str]]]


def job_rows(jobs: Iterable[job_pb2.Job]) -> Rows:
    columns = ("job", "run", "destination", "state", "sealed", "attempt", "files", "bytes", "queued", "why")
    rows: list[Sequence[str]] = [
        (
            job.job_id,
            job.run,
            job.destination,
            short_name(job_pb2.JobState.DESCRIPTOR, job.state),
            "yes" if job.sealed else "",
            str(job.attempt),
            str(job.file_count or ""),
            size(job.byte_count) if job.byte_count else "",
            moment(job.enqueue_time),
            _why(job),
        )
        for job in jobs
    ]
    return columns, rows


def _why(job: job_pb2.Job) -> str:
    """What holds it back, or why it failed."""
    if job.waiting_on and not is_copy_wrong(job):
        waiting = job.waiting_on[0]
        condition = short_name(job_pb2.WaitCondition.DESCRIPTOR, waiting.condition)
        return f"waits on {condition}: {waiting.detail}"
    if job.HasField("failure") and (job.state == job_pb2.JOB_STATE_FAILED or not job.verify_passes):
        return f"{short_name(job_pb2.FailureKind.DESCRIPTOR, job.failure.kind)}: {job.failure.message}"
    return ""


def finding_rows(findings: Iterable[finding_pb2.Finding]) -> Rows:
    columns = ("tier", "rule", "path", "matched", "detail", "overridden")
    rows: list[Sequence[str]] = [
        (
            short_name(finding_pb2.Tier.DESCRIPTOR, f.tier),
            short_name(finding_pb2.Rule.DESCRIPTOR, f.rule),
            f.offending_path,
            f.matched_token,
            f.rule_detail,
            "yes" if f.override_active else "",
        )
        for f in findings
    ]
    return columns, rows


def who(can_clear: str) -> str:
    """As people read it: "it" would be a pronoun."""
    return "IT" if can_clear == "it" else can_clear


def waiting_rows(waiting: Iterable[job_pb2.Waiting]) -> Rows:
    columns = ("waits on", "since", "who can clear it", "next try", "detail")
    rows: list[Sequence[str]] = [
        (
            short_name(job_pb2.WaitCondition.DESCRIPTOR, w.condition),
            moment(w.since),
            who(w.who_can_clear),
            moment(w.next_try_time) if w.HasField("next_try_time") else "",
            w.detail,
        )
        for w in waiting
    ]
    return columns, rows
