"""What the jobs of a run, and its proven copies, have to say to operators, as findings (SPEC §3). Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from services.sync_engine.jobs.failure import Failure
from services.sync_engine.jobs.job import PROVEN_STATES, Job, JobState
from services.sync_engine.jobs.read_model import latest_by_destination
from services.sync_engine.transfer.transport import DifferingFile, FailureKind, bytes_unless_text
from services.sync_engine.validation.finding import Finding, OffendingKind, Rule

_MOST_NAMED = 3


def findings_of_job(job: Job, unmended: str = "", next_reading: str = "") -> list[Finding]:
    """A failed job, each file that stopped it at its destination, and a job that waits for somebody. `unmended` says
    what is known to keep a wrong copy from being mended, and `next_reading` when it is read again."""
    if job.state is JobState.FAILED and job.failure is not None:
        failed = f"Job {job.job_id} to {job.destination} failed ({job.failure.kind}): {_said(job.failure)}"
        return [_of_run(job, Rule.NAS_SYNC_FAILED, failed), *_files_that_differ(job)]
    rotted = _rotted(job, unmended, next_reading) if is_rotted(job) else ()
    if job.wait is not None:
        waits = f"Job {job.job_id} to {job.destination} waits ({job.wait.condition}): {job.wait.detail}"
        # A copy that waits to be sealed anew may have been found wrong meanwhile.
        return [_of_run(job, Rule.NAS_SYNC_WAITING, waits), *rotted]
    return [*rotted, *_not_elsewhere(job)]


def _said(failure: Failure) -> str:
    """With the symlinks, which the message only counts."""
    if failure.kind is not FailureKind.SYMLINK_LEAVES_RUN:
        return failure.message
    more = f" and {len(failure.paths) - _MOST_NAMED} more" if len(failure.paths) > _MOST_NAMED else ""
    return f"{failure.message}: {', '.join(failure.paths[:_MOST_NAMED])}{more}"


def findings_of_copies(jobs: Sequence[Job], places: Collection[str]) -> list[Finding]:
    """Of a run's jobs, in the order they were queued: whether its copies at these destinations, once all are proven,
    have different manifests. After its cleanup nothing here could make them the same."""
    last = [job for name, job in latest_by_destination(jobs).items() if name in places]
    told = {job.manifest_blob for job in last}
    if len(told) < 2 or any(job.state not in PROVEN_STATES or job.state is JobState.CLEANED for job in last):
        return []
    held = ", ".join(f"{job.destination} {job.file_count} files of {job.byte_count} bytes" for job in last)
    return [_of_run(last[0], Rule.COPIES_DIFFER, f"The proven copies don't hold the same files: {held}.")]


def _not_elsewhere(job: Job) -> list[Finding]:
    if job.cleanup_hold is None or not job.may_be_the_source:
        return []
    return [_of_run(job, Rule.COPY_NOT_ELSEWHERE, f"Nothing is deleted here ({job.cleanup_hold.detail}).")]


def is_rotted(job: Job) -> bool:
    """Whether the last pass over a proven copy found something wrong, or could not check."""
    return job.state in PROVEN_STATES and job.verify_passes == 0


def _rotted(job: Job, unmended: str, next_reading: str) -> list[Finding]:
    what = job.failure.message if job.failure is not None else "the last pass failed"
    told = "; ".join(filter(None, (what, unmended, next_reading)))
    found = [_of_run(job, Rule.COPY_ROTTED, f"Destination {job.destination}: {told}.")]
    for path in job.failure.paths if job.failure is not None else ():
        found.append(
            Finding(
                rule=Rule.COPY_ROTTED,
                tier=Rule.COPY_ROTTED.tier,
                run_path=job.run,
                offending_path=f"{job.run}/{path}",
                offending_kind=OffendingKind.FILE_CONTENT,
                matched_token=None,
                rule_detail=f"The copy at destination {job.destination} is missing or holds something else.",
            )
        )
    return found


def _of_run(job: Job, rule: Rule, detail: str) -> Finding:
    return Finding(
        rule=rule,
        tier=rule.tier,
        run_path=job.run,
        offending_path=job.run,
        offending_kind=OffendingKind.DIRECTORY_SEGMENT,
        matched_token=None,
        rule_detail=detail,
    )


def _files_that_differ(job: Job) -> list[Finding]:
    if job.failure is None or job.failure.kind is not FailureKind.DESTINATION_FILE_DIFFERS:
        return []
    found = []
    for file in job.failure.differing:
        raw = bytes_unless_text(file.path)
        found.append(
            Finding(
                rule=Rule.DESTINATION_FILE_DIFFERS,
                tier=Rule.DESTINATION_FILE_DIFFERS.tier,
                run_path=job.run,
                offending_path=f"{job.run}/{file.path.decode(errors='replace')}",
                offending_kind=OffendingKind.FILE_CONTENT,
                matched_token=None,
                rule_detail=f"Destination {job.destination} holds {_what_differs(file)}.",
                offending_path_bytes=job.run.encode() + b"/" + raw if raw else b"",
            )
        )
    return found


def _what_differs(file: DifferingFile) -> str:
    there, here = file.there_sha256, file.here_sha256
    if not there and not here:
        return "something of another kind (file, folder or symlink) under this name than the run does"
    held = f"with the SHA-256 {there}" if there else "that is no file"
    ours = f"the run's file has the SHA-256 {here}" if here else "the run holds no such file"
    return f"something else of this name {held}, which this job did not write; {ours}"
