"""Files that no longer count as copies are kept beside the data, and sent again."""

from __future__ import annotations

import os

from services.sync_engine.transfer.superseded import SUPERSEDED
from tests.integration.transfer.carrying import TARGET, Carrying, tree, write


def test_a_rotted_copy_is_kept_and_sent_again(carrying: Carrying) -> None:
    write(carrying.source, b"folder/\xffa", b"right")
    write(carrying.source, b"b", b"right")
    copied = carrying.copy()
    write(carrying.run, b"folder/\xffa", b"wrong")
    outcome = carrying.verify(copied)
    carrying.transport.set_aside(
        TARGET, [*outcome.differing, b"not there"], job_id="job", attempt=1, control=carrying.control
    )
    again = carrying.copy()
    assert [[file.path for file in batch] for batch in carrying.batches[1:]] == [[b"folder/\xffa"]]
    assert carrying.verify(again).proven
    kept = carrying.destination / os.fsdecode(SUPERSEDED) / "job-1" / TARGET
    assert {path: content for path, content in tree(kept).items() if content} == {b"folder/\xffa": b"wrong"}


def test_two_of_one_name_are_both_kept(carrying: Carrying) -> None:
    for content in (b"first", b"second"):
        write(carrying.run, b"a", content)
        carrying.transport.set_aside(TARGET, [b"a"], job_id="job", attempt=1, control=carrying.control)
    kept = carrying.destination / os.fsdecode(SUPERSEDED) / "job-1" / TARGET
    assert sorted(content for content in tree(kept).values() if content) == [b"first", b"second"]
    assert tree(carrying.run) == {}
