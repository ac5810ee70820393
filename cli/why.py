"""Why a run is not moving, and what to type about it: from the run's jobs and its findings. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from google.protobuf.timestamp_pb2 import Timestamp

from cli.accept_commands import BY, accept_command
from cli.json_form import short_name
from cli.output import moment
from cli.refused_queueing import refusing, way_out, words_of
from labferry.sync.v1 import finding_pb2, job_pb2, run_pb2, staging_service_pb2

_GOING = {job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_RUNNING, job_pb2.JOB_STATE_AWAITING_VERIFY}
_PROVEN = {job_pb2.JOB_STATE_VERIFIED, job_pb2.JOB_STATE_CLEANUP_ELIGIBLE, job_pb2.JOB_STATE_CLEANED}
_MOST_FILES = 10
_FIRST_FILES = 3
_MENDS = "a pass on request that fails is followed by the engine's own, which puts back what it can:"
_SOURCELESS = "the run here doesn't hold what was proven"
_SKIPPED_OVERSIZE = "verify_skipped_oversize"
_NEVER_MADE = "initialize it first"
_APPEARED = "appeared after the run was cleared"
_GONE = "no folder of its name is found here any more"
_STAGED = "labferry staging list"


@dataclass(frozen=True, slots=True)
class Answer:
    """About one destination's job, or about a run that has none: `destination`, `job_id` and `state` are empty then.

    `condition` is what it waits on, or one of `moving`, `done`, `not_queued`, `staging`, `failed`, `cancelled`,
    `verification_failed`. `who_can_clear` is "" when nobody needs to. `to_do` are commands and plain sentences.
    """

    condition: str
    detail: str
    who_can_clear: str = ""
    destination: str = ""
    job_id: str = ""
    state: str = ""
    since: Timestamp | None = None
    next_try_time: Timestamp | None = None
    to_do: tuple[str, ...] = ()

    @property
    def needs_somebody(self) -> bool:
        return self.who_can_clear not in ("", "nobody")


def answers(
    run: run_pb2.Run,
    findings: Sequence[finding_pb2.Finding],
    staged: staging_service_pb2.StagedRun | None = None,
) -> list[Answer]:
    """One for each destination that the run ever had a job for, by its last one. `findings` are those of the run;
    `staged` is what staging says of it before it was queued."""
    closed = [f for f in findings if f.tier == finding_pb2.TIER_HARD and not f.override_active]
    refused = refusing(run.run, findings)
    latest = {job.destination: job for job in run.jobs}
    if not latest and staged is not None and not closed:
        return [_staged(staged)]
    if not latest and run.gone:
        return [Answer("not_queued", f"nobody queued it, and {_GONE}", "operator", to_do=_look_for_it(run.run))]
    if not latest and refused is not None:
        return [_refused(run.run, refused)]
    if not latest:
        return [_without_job(run.run, closed)]
    cleaned = run.sync_status == run_pb2.SYNC_STATUS_CLEANED
    of_jobs = [_of_job(job, closed, refused, cleaned=cleaned, gone=run.gone) for job in latest.values()]
    return [*of_jobs, *_held_in_staging(run, findings)]


def is_copy_wrong(job: job_pb2.Job) -> bool:
    """Whether the last reading of a copy that was proven once found it wrong, or couldn't check. That comes before what
    a cleanup waits for, which was asked earlier."""
    return job.state in _PROVEN and job.HasField("failure") and not job.verify_passes


def _refused(run: str, refused: finding_pb2.Finding) -> Answer:
    return Answer(
        "not_queued", f"{words_of(refused)}; it can't be queued", "operator", to_do=tuple(way_out(run, refused))
    )


def _without_job(run: str, closed: Sequence[finding_pb2.Finding]) -> Answer:
    if closed:
        detail = f"{_findings(closed)} without an active override; it can't be queued"
        queue = f"labferry run queue {shlex.quote(run)}"
        return Answer("gate", detail, "operator", to_do=(*_open_gate(run, closed), queue))
    detail = "nobody queued it, and nothing keeps anybody from it"
    return Answer("not_queued", detail, "operator", to_do=(f"labferry run queue {shlex.quote(run)}",))


def _staged(staged: staging_service_pb2.StagedRun) -> Answer:
    if staged.hold:
        return Answer("staging", staged.hold_detail, "operator", to_do=("put that right; labferry staging list",))
    detail = f"it is being pushed, {staged.file_count} files so far; complete, it is queued by itself"
    return Answer("staging", detail, to_do=("nothing; it goes on by itself", _STAGED))


def _held_in_staging(run: run_pb2.Run, findings: Sequence[finding_pb2.Finding]) -> list[Answer]:
    """What somebody has to look at in the staging root after the run was brought."""
    name = shlex.quote(run.run)
    again = {
        run_pb2.SYNC_STATUS_CLEANED: (f"labferry run queue {name}",),
        run_pb2.SYNC_STATUS_SYNCED: (f'labferry staging clear {name} --reason "WHY"',),
    }.get(run.sync_status, ())
    return [
        Answer("staging", f.rule_detail, "operator", to_do=(*(again if _APPEARED in f.rule_detail else ()), _STAGED))
        for f in findings
        if f.rule == finding_pb2.RULE_STAGING_WAITING
    ]


def _of_job(
    job: job_pb2.Job,
    closed: Sequence[finding_pb2.Finding],
    refused: finding_pb2.Finding | None,
    *,
    cleaned: bool,
    gone: bool,
) -> Answer:
    state = short_name(job_pb2.JobState.DESCRIPTOR, job.state)

    def answer(condition: str, detail: str, who: str = "", *to_do: str) -> Answer:
        return Answer(condition, detail, who, job.destination, job.job_id, state, to_do=to_do)

    watch = f"labferry job watch {job.job_id}"
    if is_copy_wrong(job):
        detail = "; ".join(filter(None, (_failure(job), job.repair_problem, job.next_reading)))
        if job.destination_suspected:
            return answer("verification_failed", detail, "operator", *_trust(job))
        again = job.next_reading_time if job.HasField("next_reading_time") else None
        wrong = answer("verification_failed", detail, "it", *_after_wrong_copy(job))
        return replace(wrong, next_try_time=again)
    # A cleanup that went on without this destination asked no more what it had waited for.
    over = cleaned and {w.condition for w in job.waiting_on} == {job_pb2.WAIT_CONDITION_CLEANUP_INTERLOCK}
    if job.waiting_on and not over:
        return _waiting(job, state, closed)
    if job.state == job_pb2.JOB_STATE_FAILED:
        return answer("failed", _failure(job), "operator", *_after_failure(job))
    if job.state == job_pb2.JOB_STATE_CANCELLED and gone:
        return answer("cancelled", f"an operator cancelled it, and {_GONE}", "operator", *_look_for_it(job.run))
    if job.state == job_pb2.JOB_STATE_CANCELLED and refused is not None:
        detail = f"an operator cancelled it; {words_of(refused)}; it can't be queued anew"
        return answer("cancelled", detail, "operator", *way_out(job.run, refused))
    if job.state == job_pb2.JOB_STATE_CANCELLED:
        queue = f"labferry run queue {shlex.quote(job.run)}"
        return answer("cancelled", "an operator cancelled it; queueing the run makes a new job", "operator", queue)
    if job.state in _GOING:
        return answer("moving", f"attempt {job.attempt} is in work" if job.attempt else "it begins now", "", watch)
    if not job.sealed:
        return answer("moving", "the data is verified and is being sealed", "", watch)
    if job.state == job_pb2.JOB_STATE_CLEANUP_ELIGIBLE:
        return answer("moving", "the local data is being deleted", "", watch)
    detail = f"{'1 file is' if job.file_count == 1 else f'{job.file_count} files are'} verified and sealed"
    if cleaned:
        return answer("done", f"{detail}; the local data was deleted")
    if job.HasField("verified_time"):
        detail += f"; the last pass over this copy matched at {moment(job.verified_time)}"
    if gone:
        return answer("done", f"{detail}; {_GONE}")
    detail += "; what changed here since is not looked for"
    return answer("done", detail, "", *_look_for_changes(job.run))


def _look_for_changes(run: str) -> Sequence[str]:
    """A project's own folder is never cleaned up."""
    name = shlex.quote(run)
    clean = (f"labferry run clean {name} --dry-run",) if run.count("/") > 1 else ()
    return ("these look for changes; queueing brings what was added:", *clean, f"labferry run queue {name}")


def _look_for_it(run: str) -> tuple[str, ...]:
    equipment_id, project, *_ = run.split("/")
    runs = f"labferry run list --equipment {shlex.quote(equipment_id)} --project {shlex.quote(project)}"
    return ("a run that was renamed or moved is queued under its present name:", runs)


def _after_wrong_copy(job: job_pb2.Job) -> Sequence[str]:
    run = shlex.quote(job.run)
    verify = f"labferry run verify {run}"
    if job.state == job_pb2.JOB_STATE_CLEANED or _SOURCELESS in job.repair_problem:
        source = "put the proven files back into the run's folder here, from another destination, say"
        return ("look at the storage", f"{source}; {_MENDS}", verify)
    if _SKIPPED_OVERSIZE in job.failure.message:
        return ("look at the storage", f"{verify} --max-stream-bytes {job.byte_count}")
    return (f"look at the storage; {_MENDS}", verify)


def _waiting(job: job_pb2.Job, state: str, closed: Sequence[finding_pb2.Finding]) -> Answer:
    waiting = job.waiting_on[0]
    condition = short_name(job_pb2.WaitCondition.DESCRIPTOR, waiting.condition)
    if waiting.condition == job_pb2.WAIT_CONDITION_GATE and closed:
        to_do: Sequence[str] = _open_gate(job.run, closed)
    else:
        # A newer engine may know conditions that this command doesn't.
        to_do = TO_DO.get(waiting.condition, _let_go_on)(job)
    return Answer(
        condition,
        waiting.detail,
        waiting.who_can_clear,
        job.destination,
        job.job_id,
        state,
        since=waiting.since,
        next_try_time=waiting.next_try_time if waiting.HasField("next_try_time") else None,
        to_do=tuple(to_do),
    )


def _nothing(_: job_pb2.Job) -> Sequence[str]:
    return ("nothing; it goes on by itself",)


def _overtake(job: job_pb2.Job) -> Sequence[str]:
    first = f'labferry job prioritize {job.job_id} --priority {job.priority + 1} --reason "WHY"'
    return ("nothing; it goes on by itself", f"to have it go before others: {first}")


def _accept_each(job: job_pb2.Job) -> Sequence[str]:
    either = "put back what was verified, or accept each change:"
    if job.failure.message == job.waiting_on[0].detail:
        return (either, *_acceptances(job))
    return (f"{either} labferry run accept {shlex.quote(job.run)} PATH --old SHA256 --new SHA256 {BY}",)


def _look_at_destination(job: job_pb2.Job) -> Sequence[str]:
    return (f"labferry equipment show {job.equipment_id}",)


def _make_room(job: job_pb2.Job) -> Sequence[str]:
    return ("make room there; the free space:", f"labferry equipment show {job.equipment_id}")


def _let_go_on(job: job_pb2.Job) -> Sequence[str]:
    if job.state == job_pb2.JOB_STATE_PAUSED:
        return (f'labferry job resume {job.job_id} --reason "WHY"',)
    if job.waiting_on[0].detail.startswith(_SKIPPED_OVERSIZE):
        # No file of the copy is larger than all of them, and the bound holds for this copy alone.
        return (f"labferry run verify {shlex.quote(job.run)} --max-stream-bytes {job.byte_count}",)
    if job.destination_suspected and job.state == job_pb2.JOB_STATE_QUEUED:
        return _trust(job)
    return ("put right what the detail names",)


def _trust(job: job_pb2.Job) -> Sequence[str]:
    trust = f'labferry equipment trust {job.equipment_id} {shlex.quote(job.destination)} --reason "WHY"'
    return ("look at the storage, then trust it again:", trust)


def _configure(job: job_pb2.Job) -> Sequence[str]:
    return (f"put {job.equipment_id} and its destination {job.destination} back into labferry.yaml, and restart",)


def _resume_equipment(job: job_pb2.Job) -> Sequence[str]:
    return (f'labferry equipment resume {job.equipment_id} --reason "WHY"',)


def _open_secrets(job: job_pb2.Job) -> Sequence[str]:
    doctor = "see how the secrets service is: labferry doctor"
    if _NEVER_MADE in job.waiting_on[0].detail:
        return ("labferry secret initialize", f"labferry secret set nas:{job.equipment_id}", doctor)
    return ("labferry secret unseal", doctor)


def _make_room_here(_: job_pb2.Job) -> Sequence[str]:
    return ("make room on the disk of state_dir, where the engine runs; see how much there is: labferry doctor",)


TO_DO: Mapping[job_pb2.WaitCondition.ValueType, Callable[[job_pb2.Job], Sequence[str]]] = {
    job_pb2.WAIT_CONDITION_SLOT: _overtake,
    job_pb2.WAIT_CONDITION_BACKOFF: _nothing,
    job_pb2.WAIT_CONDITION_GATE: _accept_each,
    job_pb2.WAIT_CONDITION_DESTINATION_FULL: _make_room,
    job_pb2.WAIT_CONDITION_DESTINATION_UNREACHABLE: _look_at_destination,
    job_pb2.WAIT_CONDITION_SOURCE_UNSETTLED: _nothing,
    job_pb2.WAIT_CONDITION_OPERATOR: _let_go_on,
    job_pb2.WAIT_CONDITION_EQUIPMENT_NOT_CONFIGURED: _configure,
    job_pb2.WAIT_CONDITION_EQUIPMENT_PAUSED: _resume_equipment,
    job_pb2.WAIT_CONDITION_SECRETS_UNAVAILABLE: _open_secrets,
    job_pb2.WAIT_CONDITION_STATE_DISK_FULL: _make_room_here,
}
"""What can be done about each condition. A job at the gate without a finding waits for changes to be accepted."""


def _open_gate(run: str, closed: Sequence[finding_pb2.Finding]) -> tuple[str, ...]:
    rules = dict.fromkeys(short_name(finding_pb2.Rule.DESCRIPTOR, f.rule) for f in closed)
    overrides = (f"labferry override add {shlex.quote(run)} {rule} {BY}" for rule in rules)
    return ("rename what is wrong, or permit it on this run:", *overrides)


def _findings(closed: Sequence[finding_pb2.Finding]) -> str:
    first = f"{short_name(finding_pb2.Rule.DESCRIPTOR, closed[0].rule)}: {closed[0].offending_path}"
    return f"{first} and {len(closed) - 1} more" if len(closed) > 1 else first


def _failure(job: job_pb2.Job) -> str:
    """With the first of the files that the message doesn't name, unless a command follows for each."""
    said = f"{short_name(job_pb2.FailureKind.DESCRIPTOR, job.failure.kind)}: {job.failure.message}"
    named = job.failure.kind == job_pb2.FAILURE_KIND_DESTINATION_FILE_DIFFERS
    files = [] if named else [path for path in job.failure.paths if not _names(job.failure.message, path)]
    more = f" and {len(files) - _FIRST_FILES} more" if len(files) > _FIRST_FILES else ""
    return f"{said} ({', '.join(files[:_FIRST_FILES])}{more})" if files else said


def _names(message: str, path: str) -> bool:
    """A path of mere words may be the message's own."""
    return (
        re.fullmatch(r"[A-Za-z ]+", path) is None and re.search(rf"(?<!\w){re.escape(path)}(?!\w)", message) is not None
    )


def _after_failure(job: job_pb2.Job) -> list[str]:
    retry = f'labferry job retry {job.job_id} --reason "WHY"'
    if job.failure.kind != job_pb2.FAILURE_KIND_DESTINATION_FILE_DIFFERS:
        return ["put right what the failure names, then:", retry]
    differing, accept = job.failure.differing_files, _acceptances(job)
    if accept:
        accept = ["accept that ours replaces theirs, which is kept beside the data:", *accept]
    other = [f.path for f in differing if not f.old_sha256] if differing else list(job.failure.paths)
    if not other and not accept:
        return ["move away at the storage what the failure names, then:", retry]
    if not other:
        return [*accept, f"or put it away: {retry}"]
    more = f" and {len(other) - _MOST_FILES} more" if len(other) > _MOST_FILES else ""
    named = ", ".join(other[:_MOST_FILES]) + more
    return [*accept, f"move away at the storage what lies in the place of {named}; then:", retry]


def _acceptances(job: job_pb2.Job) -> list[str]:
    """One command for each file that can be accepted; a sentence when there are more."""
    files = [f for f in job.failure.differing_files if f.old_sha256]
    accept = [accept_command(job.run, f) for f in files[:_MOST_FILES]]
    return [*accept, *([f"and the others: labferry job show {job.job_id} -o json"] if len(files) > _MOST_FILES else [])]
