"""The conditions under which local data may be deleted: all of them, at one moment (SPEC §4, Cleanup). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from libs.run_tree.creation_record import SyncStatus
from libs.service_kit.time_span import shown_span
from services.sync_engine.cleanup.ticket import Limits, Ticket
from services.sync_engine.jobs.job import COPY_IS_ELSEWHERE, PROVEN_STATES, Job


class InterlockName(StrEnum):
    """In the order in which they are looked at: the cheap ones first, what reads all data, and what is only worth
    anything right before the deletion. The first is asked of staged runs alone."""

    STAGING_STATE = "staging_state"
    ENABLED = "enabled"
    COPIES_VERIFIED = "copies_verified"
    VERIFY_PASSES = "verify_passes"
    AGE = "age"
    SEALED = "sealed"
    DESTINATIONS_ANSWER = "destinations_answer"
    NO_RECENT_TOMBSTONE = "no_recent_tombstone"
    GATE_OPEN = "gate_open"
    LOCAL_FILES_UNCHANGED = "local_files_unchanged"
    WRITERS_VISIBLE = "writers_visible"
    WITHIN_LIMITS = "within_limits"
    FRESH_READ_BACK = "fresh_read_back"
    COPY_IS_ELSEWHERE = COPY_IS_ELSEWHERE


@dataclass(frozen=True, slots=True)
class Interlock:
    """One condition as it was found. `detail` is one plain sentence. Not `asked`: it was not looked at."""

    name: InterlockName
    satisfied: bool
    detail: str
    asked: bool = True


@dataclass(frozen=True, slots=True)
class CleanupRules:
    """`nas_cleanup` of the configuration. `delete_without_lease`: also files of which nobody can tell whether another
    program has them open for writing."""

    enabled: bool
    min_verify_passes: int
    min_age: timedelta
    retain_cache: bool
    limits: Limits
    delete_without_lease: bool = False


@dataclass(frozen=True, slots=True)
class CopyFacts:
    """One configured destination: its last job, and what it says instead of answering (empty: it answers)."""

    destination: str
    job: Job | None
    problem: str


@dataclass(frozen=True, slots=True)
class LocalFacts:
    """The run as it lies on this machine, compared with what was proven at every destination.

    `added` are for people, `changed` says in what each such file did, and `unreadable` what the system said; `problem`
    says why the files could not be looked at. `unleased` names the first file on which the system gives no lease, and
    says why; empty: there is none.
    """

    ticket: Ticket
    changed: Sequence[str] = ()
    added: Sequence[str] = ()
    missing: int = 0
    problem: str = ""
    looked_at: bool = True
    unleased: str = ""
    unreadable: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class CleanupFacts:
    """Everything but the fresh reading back. `elsewhere` are destinations of unended jobs that the configuration
    doesn't name; `recent_tombstones` were recorded since a copy was last verified; `gate` says what closes it.
    `sync_status` is what every copy's changing files must say, with so many overrides. `deletion_begun`: an earlier
    cleanup deleted something, or was about to. `of_project`: this is a project's own folder, which its runs to come
    need."""

    now: datetime
    copies: Sequence[CopyFacts]
    elsewhere: Sequence[str]
    recent_tombstones: Sequence[str]
    gate: str
    local: LocalFacts
    sync_status: SyncStatus | None = None
    override_count: int = 0
    deletion_begun: bool = False
    of_project: bool = False


def standing_interlocks(facts: CleanupFacts, rules: CleanupRules) -> list[Interlock]:
    """Every interlock but `fresh_read_back`, which costs a reading of all data, and `copy_is_elsewhere`, which is asked
    for last because nothing may come between it and the deletion."""
    return [
        _enabled(facts, rules),
        _copies_verified(facts),
        _passes(facts, rules),
        _age(facts, rules),
        _none_of(
            InterlockName.SEALED,
            [c.destination for c in facts.copies if c.job is None or _seal_is_wanting(c.job, facts)],
            "every copy is sealed",
            "not sealed with the run's present status and overrides",
        ),
        _answering(facts),
        _none_of(
            InterlockName.NO_RECENT_TOMBSTONE,
            facts.recent_tombstones,
            "no override was revoked since the last verification",
            "overrides revoked since the last verification",
        ),
        Interlock(InterlockName.GATE_OPEN, not facts.gate, facts.gate or "no hard finding without an active override"),
        _local(facts.local),
        _writers(facts.local, rules),
        within_limits(facts.local.ticket, rules.limits),
    ]


def all_hold(interlocks: Iterable[Interlock]) -> bool:
    """Whether nothing holds the deletion back."""
    return all(interlock.satisfied for interlock in interlocks)


def _enabled(facts: CleanupFacts, rules: CleanupRules) -> Interlock:
    if facts.of_project:
        return Interlock(InterlockName.ENABLED, False, "only runs are cleaned; a project's own files stay")
    said = "true" if rules.enabled else "false"
    return Interlock(InterlockName.ENABLED, rules.enabled, f"nas_cleanup.enabled is {said}")


def _seal_is_wanting(job: Job, facts: CleanupFacts) -> bool:
    # What is not sealed before the deletion never is: after it nothing is written to the copy.
    status = facts.sync_status
    return status is None or not job.sealed or job.seal_is_stale(status, facts.override_count)


def _copies_verified(facts: CleanupFacts) -> Interlock:
    lacking = [c.destination for c in facts.copies if c.job is None or c.job.state not in PROVEN_STATES]
    if not facts.copies:
        return Interlock(InterlockName.COPIES_VERIFIED, False, "no destination is configured")
    held = _none_of(
        InterlockName.COPIES_VERIFIED,
        [*lacking, *facts.elsewhere],
        f"every destination ({', '.join(c.destination for c in facts.copies)}) holds a verified copy",
        "without a verified copy",
    )
    if facts.deletion_begun and any(c.job is None for c in facts.copies):
        # Nothing here could bring it there any more.
        way_out = "give a renamed destination its old name back, or take a new one out until the run is cleaned"
        return replace(held, detail=f"{held.detail}; a part of the run was deleted here before it was there: {way_out}")
    return held


def _passes(facts: CleanupFacts, rules: CleanupRules) -> Interlock:
    wanted = rules.min_verify_passes
    counts = [(c.destination, 0 if c.job is None else c.job.verify_passes) for c in facts.copies]
    said = ", ".join(f"{name}: {count} of {wanted}" for name, count in counts)
    return Interlock(
        InterlockName.VERIFY_PASSES,
        bool(counts) and all(count >= wanted for _, count in counts),
        f"passes that matched at {said}" if said else "no destination is configured",
    )


def _age(facts: CleanupFacts, rules: CleanupRules) -> Interlock:
    reached = [_reached(c.job, rules.min_verify_passes) for c in facts.copies]
    times = [moment for moment in reached if moment is not None]
    hours = rules.min_age.total_seconds() / 3600
    if not times or len(times) < len(reached):
        return Interlock(InterlockName.AGE, False, f"the {hours:g} h begin with the last pass that is still wanted")
    since = max(times)
    age = facts.now - since
    said = f"the last pass that was wanted matched at {since:%Y-%m-%dT%H:%M:%SZ}"
    wanted = f"{hours:g} h are wanted since then"
    if age < timedelta(0):
        # One of the two clocks was wrong, and nobody knows which: nothing is old enough then.
        ahead = f"which lies {shown_span(-age)} ahead of this machine's clock"
        way_out = "put the clock right if it is behind; if it ran ahead then, the data stays until that time has come"
        return Interlock(InterlockName.AGE, False, f"{said}, {ahead}; {wanted}: {way_out}")
    return Interlock(InterlockName.AGE, age >= rules.min_age, f"{said}; {wanted}")


def _reached(job: Job | None, passes: int) -> datetime | None:
    """When the pass that reached the number matched; None when it isn't reached."""
    return None if job is None or len(job.passes) < passes else job.passes[passes - 1]


def _answering(facts: CleanupFacts) -> Interlock:
    silent = [f"{c.destination} ({c.problem})" for c in facts.copies if c.problem]
    return _none_of(InterlockName.DESTINATIONS_ANSWER, silent, "every destination answers", "not answering")


def _local(local: LocalFacts) -> Interlock:
    name = InterlockName.LOCAL_FILES_UNCHANGED
    if local.problem:
        return Interlock(name, False, local.problem, asked=local.looked_at)
    wrong = [*local.unreadable, *local.changed]
    wrong += [f"{path} was never verified" for path in local.added]
    gone = f"; {local.missing} are not there any more" if local.missing else ""
    files = local.ticket.file_count
    return _none_of(name, wrong, f"{files} files have the size, time and hash that was verified{gone}", "here")


def _writers(local: LocalFacts, rules: CleanupRules) -> Interlock:
    name = InterlockName.WRITERS_VISIBLE
    if local.problem:
        return Interlock(name, False, "not looked at: the files couldn't be", asked=False)
    if local.unleased and rules.delete_without_lease:
        return Interlock(name, True, "nas_cleanup.delete_without_lease is true; not every file can be guarded")
    return Interlock(name, not local.unleased, local.unleased or "no file can be written to unseen")


def within_limits(ticket: Ticket, limits: Limits) -> Interlock:
    """The breakers on what one deletion may take."""
    too_much = limits.exceeded_by(ticket)
    return Interlock(
        InterlockName.WITHIN_LIMITS,
        not too_much,
        too_much or f"{ticket.file_count} files of {ticket.byte_count} bytes are within the limits",
    )


_MOST_NAMED = 5


def _none_of(name: InterlockName, wrong: Sequence[str], good: str, bad: str) -> Interlock:
    if not wrong:
        return Interlock(name, True, good)
    more = f" and {len(wrong) - _MOST_NAMED} more" if len(wrong) > _MOST_NAMED else ""
    return Interlock(name, False, f"{bad}: {', '.join(wrong[:_MOST_NAMED])}{more}")
