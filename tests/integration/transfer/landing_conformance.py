"""How every transport lands files: never in the place of anything, and never twice."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from services.sync_engine.transfer.incoming import INCOMING
from services.sync_engine.transfer.superseded import SUPERSEDED
from services.sync_engine.transfer.transport import (
    CopiedFile,
    FailureKind,
    ProgressPhase,
    TransferError,
)
from tests.integration.transfer.carrying import TARGET, Carrying, tree, write
from tests.integration.transfer.conforming import Conforming


class LandingConformance(Conforming):
    """What is found at the destination, and what attempts before have left."""

    def test_nothing_has_its_name_before_the_log_has_it(self, carrying: Carrying) -> None:
        for number in range(20):
            write(carrying.source, b"%02d" % number, b"x")

        def look(batch: Sequence[CopiedFile]) -> None:
            assert not any(os.path.lexists(os.path.join(os.fsencode(carrying.run), file.path)) for file in batch)

        carrying.copy(look)
        assert sorted(file.path for batch in carrying.batches for file in batch) == [b"%02d" % n for n in range(20)]
        carrying.transport.sweep("job", keep_attempt=None, control=carrying.control)
        incoming = carrying.destination / os.fsdecode(INCOMING)
        assert not incoming.exists() or os.listdir(incoming) == []

    def test_what_landed_is_not_sent_again(self, carrying: Carrying) -> None:
        for number in range(5):
            write(carrying.source, b"%d" % number, b"same")
        first = carrying.copy()
        assert carrying.copy() == first
        assert len(carrying.batches) == 1
        assert carrying.progress.phases[-1] == (ProgressPhase.COPYING, 0, 0)

    def test_different_files_are_named_and_never_replaced(self, carrying: Carrying) -> None:
        for name in (b"a", b"b", b"c", b"same size", b"same"):
            write(carrying.source, name, b"ours")
        write(carrying.run, b"b", b"theirs, longer")
        write(carrying.run, b"same size", b"OURS")
        write(carrying.run, b"same", b"ours")
        write(carrying.run, b"c/inside", b"theirs")
        before = tree(carrying.run)
        with pytest.raises(TransferError) as refusal:
            carrying.copy()
        assert refusal.value.kind is FailureKind.DESTINATION_FILE_DIFFERS
        assert refusal.value.paths == (b"b", b"c", b"same size")
        assert tree(carrying.run) == before

    @pytest.mark.parametrize(("theirs", "refused"), [(b"theirs", True), (b"ours", False)])
    def test_a_name_taken_at_the_last_moment(self, carrying: Carrying, theirs: bytes, refused: bool) -> None:
        write(carrying.source, b"a", b"ours")
        write(carrying.source, b"b", b"ours")
        if refused:
            with pytest.raises(TransferError) as refusal:
                carrying.copy(lambda batch: write(carrying.run, b"a", theirs))
            assert refusal.value.kind is FailureKind.DESTINATION_FILE_DIFFERS
            assert refusal.value.paths == (b"a",)
        else:
            carrying.copy(lambda batch: write(carrying.run, b"a", theirs))
        assert (carrying.run / "a").read_bytes() == theirs

    def test_this_jobs_own_unproven_copy_is_replaced(self, carrying: Carrying) -> None:
        write(carrying.source, b"a", b"first")
        write(carrying.source, b"b", b"stays")
        carrying.copy()
        write(carrying.source, b"a", b"second")
        copied = carrying.copy()
        assert tree(carrying.run) == {b"a": b"second", b"b": b"stays"}
        assert [[file.path for file in batch] for batch in carrying.batches] == [[b"a", b"b"], [b"a"]]
        assert carrying.verify(copied).proven
        superseded = carrying.destination / os.fsdecode(SUPERSEDED)
        assert not [path for path in superseded.rglob("*") if path.is_file()], "it was kept until it was replaced"

    def test_what_is_set_aside_to_be_replaced_is_kept_and_replaced(self, carrying: Carrying) -> None:
        write(carrying.source, b"sub/a", b"right")
        write(carrying.source, b"b", b"right")
        carrying.copy()
        write(carrying.run, b"sub/a", b"wrong")
        found = carrying.transport.set_aside(
            TARGET, [b"sub/a", b"none"], job_id="job", attempt=2, control=carrying.control, replaced=True
        )
        assert found == [b"sub/a"]
        assert carrying.verify(carrying.copy()).proven
        kept = carrying.destination / os.fsdecode(SUPERSEDED) / "job-2" / TARGET / "sub" / "a"
        assert kept.read_bytes() == b"wrong"
        assert not list((carrying.destination / os.fsdecode(INCOMING)).glob("job-*"))

    def test_what_was_set_aside_counts_for_that_attempt_alone(self, carrying: Carrying) -> None:
        write(carrying.source, b"a", b"ours")
        write(carrying.run, b"a", b"theirs")
        carrying.transport.set_aside(TARGET, [b"a"], job_id="job", attempt=1, control=carrying.control, replaced=True)
        carrying.copy()
        write(carrying.run, b"a", b"another's")
        carrying.batches.clear()
        with pytest.raises(TransferError) as refused:
            carrying.copy()
        assert refused.value.kind is FailureKind.DESTINATION_FILE_DIFFERS
        carrying.attempt = 0
        with pytest.raises(TransferError) as refused:
            carrying.copy()
        assert refused.value.kind is FailureKind.DESTINATION_FILE_DIFFERS
        assert (carrying.run / "a").read_bytes() == b"another's"

    def test_a_source_that_changes_after_it_was_hashed(self, carrying: Carrying) -> None:
        for name in (b"a", b"b", b"c"):
            write(carrying.source, name, b"x" * 1000)
        before = os.stat(carrying.source / "b")
        progress_advance = carrying.progress.advance

        def change(files: int, nbytes: int, current: bytes) -> None:
            progress_advance(files, nbytes, current)
            with open(carrying.source / "b", "r+b") as file:
                file.write(b"y")
            os.utime(carrying.source / "b", ns=(before.st_atime_ns, before.st_mtime_ns))

        carrying.progress.advance = change  # type: ignore[method-assign]
        with pytest.raises(TransferError) as error:
            carrying.copy()
        assert error.value.kind is FailureKind.SOURCE_CHANGED
        assert b"b" in error.value.paths
        landed = {path: content for path, content in tree(carrying.run).items() if path == b"b"}
        assert landed in ({}, {b"b": b"x" * 1000})

    def test_sweeping_spares_other_jobs_and_the_attempt_in_work(self, carrying: Carrying) -> None:
        incoming = carrying.destination / os.fsdecode(INCOMING)
        carrying.transport.sweep("job", keep_attempt=None, control=carrying.control)
        for folder in ("job-1", "job-2", "job-1-1", "other-1"):
            write(incoming / folder, b"0", b"half")
        carrying.transport.sweep("job", keep_attempt=2, control=carrying.control)
        assert sorted(os.listdir(incoming)) == ["job-1-1", "job-2", "other-1"]
