"""Soft findings with which a run can't be queued all the same, and what to do about each. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from cli.json_form import short_name
from labferry.sync.v1 import finding_pb2
from libs.run_tree.run_path import RunKind, RunPath

_CREATION = ".exlab-wizard/creation.json"
_IN_ORDER = (finding_pb2.RULE_ORPHAN, finding_pb2.RULE_UNREADABLE_CREATION_JSON, finding_pb2.RULE_UNREADABLE_FOLDER)
"""As queueing meets them."""
_START = re.compile(r"_(\d{4}-\d\d-\d\dT\d\d)-(\d\d)$")


def refusing(run: str, findings: Sequence[finding_pb2.Finding]) -> finding_pb2.Finding | None:
    """The one that queueing would name. What is wrong in the folders above a run refuses nothing."""
    own = [f for f in findings if f.run_path == run or f.offending_path == run]
    return next((f for rule in _IN_ORDER for f in own if f.rule == rule), None)


def words_of(refused: finding_pb2.Finding) -> str:
    where = f"{refused.offending_path}: " if refused.rule == finding_pb2.RULE_UNREADABLE_FOLDER else ""
    return f"{short_name(finding_pb2.Rule.DESCRIPTOR, refused.rule)}: {where}{refused.rule_detail}"


def way_out(run: str, refused: finding_pb2.Finding) -> Sequence[str]:
    queue = f"labferry run queue {shlex.quote(run)}"
    if refused.rule == finding_pb2.RULE_UNREADABLE_FOLDER:
        return (f"let the engine read {refused.offending_path}; then:", queue)
    if refused.rule == finding_pb2.RULE_UNREADABLE_CREATION_JSON:
        return (f"put {_CREATION} of it right, or restore it from a backup; then:", queue)
    path = RunPath.parse(run)
    kind = RunKind.of_group(path.group)
    if kind is None:
        return (f"make {_CREATION} of it with ExLab-Wizard, or restore it from a backup; then:", queue)
    adopt = f"labferry run adopt FOLDER --equipment {path.equipment_id} --project {shlex.quote(path.project)}"
    start = _START.search(path.leaf)
    options = f"{' --kind test' if kind is RunKind.TEST else ''}{f' --started {start[1]}:{start[2]}Z' if start else ''}"
    move = f"move the folder out of {path.group}/ to another place in its local_root, and adopt it from there:"
    return (f"restore {_CREATION} of it; or {move}", f"{adopt}{options} --operator NAME", queue)
