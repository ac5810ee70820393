"""The interlocks of a cleanup, as a table and as an exit status."""

from __future__ import annotations

from collections.abc import Sequence

from cli.output import print_table
from labferry.sync.v1 import sync_service_pb2


def print_interlocks(interlocks: Sequence[sync_service_pb2.Interlock]) -> None:
    """One row each; nothing when there are none."""
    if interlocks:
        rows = [(i.name, "not asked" if i.not_asked else "yes" if i.satisfied else "NO", i.detail) for i in interlocks]
        print_table(("interlock", "holds", "detail"), rows)


def may_go_on(interlocks: Sequence[sync_service_pb2.Interlock]) -> bool:
    """Whether everything holds that was looked at: of a dry run, all but what is only asked right before a deletion."""
    return bool(interlocks) and all(i.satisfied or i.not_asked for i in interlocks)
