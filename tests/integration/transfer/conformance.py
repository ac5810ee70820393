"""What every transport does, whatever lies behind it. A transport subclasses `TransportConformance` and says how one
is opened.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import pytest

from libs.run_tree.manifest import MANIFEST_PATH, ManifestEntry, format_manifest
from services.sync_engine.transfer.bandwidth import UNLIMITED, Bandwidth
from services.sync_engine.transfer.incoming import INCOMING
from services.sync_engine.transfer.transport import (
    CopiedFile,
    EvidenceGrade,
    FailureKind,
    ProgressPhase,
    SealedFile,
    StopReason,
    TransferControl,
    TransferError,
    TransferStoppedError,
    Transport,
)
from tests.integration.sync_engine.running_engine import sha256sum_agrees
from tests.integration.transfer.carrying import HOSTILE_NAMES, TARGET, Carrying, tree, write


def children_of_this_process() -> set[int]:
    """Processes that this one started and that run, those of other parts of the test included."""
    found = set()
    for thread in os.listdir("/proc/self/task"):
        try:
            children = Path(f"/proc/self/task/{thread}/children").read_text().split()
        except OSError:
            # The thread ended meanwhile, and its children with it.
            continue
        found |= {int(child) for child in children}
    return found


class TransportConformance:
    """`keeps` names what the destination keeps: "links", "empty folders", "any bytes"."""

    mtime_step_ns = 1
    keeps = frozenset({"links", "empty folders", "any bytes"})
    names: Sequence[bytes] = HOSTILE_NAMES
    small_files = 2000
    large_bytes = 200 << 20
    several_batches = 1500

    def open(self, destination: Path, bandwidth: Bandwidth = UNLIMITED) -> Transport:
        raise NotImplementedError

    @pytest.fixture
    def carrying(self, tmp_path: Path) -> Iterator[Carrying]:
        source, destination = tmp_path / "run", tmp_path / "nas"
        source.mkdir()
        destination.mkdir(exist_ok=True)
        before = children_of_this_process()
        yield Carrying(source, destination, self.open(destination))
        assert children_of_this_process() <= before

    def test_hostile_names_arrive_unchanged(self, carrying: Carrying) -> None:
        for number, name in enumerate(self.names):
            write(carrying.source, name, b"%d" % number)
            write(carrying.source, b"folder " + name[:200].rstrip(b" .") + b"/" + name, b"%d" % -number)
        copied = carrying.copy()
        assert tree(carrying.run) == tree(carrying.source)
        outcome = carrying.verify(copied)
        assert (outcome.missing, outcome.differing, outcome.proven) == ((), (), True)
        assert (outcome.unexpected, outcome.oversize, outcome.grade) == ((), (), EvidenceGrade.E4)
        assert {one.path for one in outcome.evidence} == {file.path for file in copied}

    def test_a_name_that_can_not_be_kept_is_refused_before_the_first_byte(self, carrying: Carrying) -> None:
        refused = sorted(set(HOSTILE_NAMES) - set(self.names))
        for name in HOSTILE_NAMES:
            write(carrying.source, name, b"x")
        if not refused:
            assert carrying.verify(carrying.copy()).proven, "it keeps every name"
            return
        with pytest.raises(TransferError) as refusal:
            carrying.copy()
        assert refusal.value.kind is FailureKind.NAME_NOT_POSSIBLE
        # Another name may be too near to a refused one.
        assert set(refused) <= set(refusal.value.paths) and b"plain.txt" not in refusal.value.paths
        assert not carrying.run.exists()

    def test_times_empty_files_and_deep_trees(self, carrying: Carrying) -> None:
        mtime_ns = 1_234_567_890_987_654_321
        write(carrying.source, b"/".join([b"deep"] * 30) + b"/data.bin", b"x" * 100, mtime_ns)
        write(carrying.source, b"empty.bin", b"", mtime_ns)
        copied = carrying.copy()
        assert tree(carrying.run) == tree(carrying.source)
        for file in copied:
            there = os.stat(os.path.join(os.fsencode(carrying.run), file.path)).st_mtime_ns
            assert abs(there - mtime_ns) < self.mtime_step_ns
        assert carrying.verify(copied).proven

    def test_links_and_empty_folders_are_kept_or_refused(self, carrying: Carrying) -> None:
        write(carrying.source, b"a", b"x")
        (carrying.source / "link").symlink_to("a")
        (carrying.source / "nothing" / "in" / "here").mkdir(parents=True)
        refused = {b"link": "links" not in self.keeps, b"nothing/in/here": "empty folders" not in self.keeps}
        if any(refused.values()):
            with pytest.raises(TransferError) as refusal:
                carrying.copy()
            assert refusal.value.kind is FailureKind.NAME_NOT_POSSIBLE
            assert set(refusal.value.paths) == {path for path, is_refused in refused.items() if is_refused}
            (carrying.source / "link").unlink()
        if refused[b"nothing/in/here"]:
            return
        assert carrying.verify(carrying.copy()).proven
        assert tree(carrying.run) == tree(carrying.source)

    @pytest.mark.slow
    def test_many_small_files_and_a_large_one(self, carrying: Carrying) -> None:
        for number in range(self.small_files):
            write(carrying.source, b"%d/%04d.tif" % (number % 7, number), b"%d" % number)
        with open(carrying.source / "large.bin", "wb") as large:
            block = os.urandom(1 << 20)
            for _ in range(self.large_bytes >> 20):
                large.write(block)
        copied = carrying.copy()
        total = sum(file.size for file in copied)
        assert carrying.progress.phases[-1] == (ProgressPhase.COPYING, self.small_files + 1, total)
        assert (carrying.progress.files, carrying.progress.bytes) == (self.small_files + 1, total)
        outcome = carrying.verify(copied)
        assert (outcome.hashed, outcome.matched, outcome.proven) == (self.small_files + 1, self.small_files + 1, True)
        assert (carrying.progress.files, carrying.progress.bytes) == (self.small_files + 1, total)

    def test_nothing_has_its_name_before_the_log_has_it(self, carrying: Carrying) -> None:
        for number in range(20):
            write(carrying.source, b"%02d" % number, b"x")

        def look(batch: Sequence[CopiedFile]) -> None:
            assert not any(os.path.lexists(os.path.join(os.fsencode(carrying.run), file.path)) for file in batch)

        carrying.copy(look)
        assert sorted(file.path for batch in carrying.batches for file in batch) == [b"%02d" % n for n in range(20)]
        carrying.transport.sweep("job", keep_attempt=None)
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
        (carrying.run / "c").mkdir()
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

    def test_missing_differing_and_unexpected_are_told_apart(self, carrying: Carrying) -> None:
        for name in (b"corrupt", b"gone", b"right", b"short"):
            write(carrying.source, name, b"x" * 5000)
        copied = carrying.copy()
        with open(carrying.run / "corrupt", "r+b") as file:
            file.seek(4321)
            file.write(b"y")
        os.truncate(carrying.run / "short", 4999)
        (carrying.run / "gone").unlink()
        write(carrying.run, b"sub/new", b"?")
        write(carrying.run, b".exlab-wizard/creation.json", b"{}")
        outcome = carrying.verify(copied)
        assert not outcome.proven
        assert outcome.missing == (b"gone",)
        assert outcome.differing == (b"corrupt", b"short")
        assert outcome.unexpected == (b"sub/new",)
        assert (outcome.expected, outcome.matched) == (4, 1)

    def test_a_stop_in_the_middle_and_another_attempt(self, carrying: Carrying) -> None:
        for number in range(self.several_batches):
            write(carrying.source, b"%04d" % number, b"x")
        with pytest.raises(TransferStoppedError) as stop:
            carrying.copy(lambda batch: carrying.control.stop(StopReason.CANCELLED))
        assert stop.value.reason is StopReason.CANCELLED
        at_destination = tree(carrying.run) if carrying.run.exists() else {}
        assert at_destination.items() <= tree(carrying.source).items()
        carrying.control = TransferControl()
        carrying.transport.sweep("job", keep_attempt=None)
        copied = carrying.copy()
        assert tree(carrying.run) == tree(carrying.source)
        assert carrying.verify(copied).proven

    def test_winding_down_lands_what_is_whole_and_begins_no_other(self, carrying: Carrying) -> None:
        for number in range(self.several_batches):
            write(carrying.source, b"%04d" % number, b"x")
        with pytest.raises(TransferStoppedError):
            carrying.copy(lambda batch: carrying.control.wind_down(StopReason.ENGINE_STOPPING))
        assert 0 < len(tree(carrying.run)) < self.several_batches

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

    def test_sealing_replaces_and_the_manifest_checks_there(self, carrying: Carrying) -> None:
        for name in self.names:
            write(carrying.source, name, name)
        copied = carrying.copy()
        manifest = format_manifest(ManifestEntry(file.path, file.sha256) for file in copied)
        creation = os.fsencode(TARGET) + b"/.exlab-wizard/creation.json"
        mtime_ns = 1_600_000_000_000_000_000
        for status in (b"pending", b"synced"):
            carrying.transport.seal(
                [
                    SealedFile(os.fsencode(TARGET) + b"/" + MANIFEST_PATH, manifest, mtime_ns),
                    SealedFile(creation, status, mtime_ns),
                    SealedFile(b".exlab-wizard/equipment.json", b"{}", mtime_ns),
                ]
            )
        assert (carrying.run / ".exlab-wizard" / "creation.json").read_bytes() == b"synced"
        assert sorted(os.listdir(carrying.run / ".exlab-wizard")) == ["checksums.sha256", "creation.json"]
        assert sha256sum_agrees(carrying.run) == len(copied)
        assert carrying.verify(copied).unexpected == ()

    def test_digests_and_setting_aside(self, carrying: Carrying) -> None:
        write(carrying.source, b"a", b"rotten")
        write(carrying.source, b"b c", b"good")
        copied = {file.path: file for file in carrying.copy()}
        assert carrying.transport.digests(TARGET, [b"a", b"not there"]) == {b"a": copied[b"a"].sha256}
        assert carrying.transport.digests(PurePosixPath("never"), [b"a"]) == {}
        for content in (b"rotten", b"again"):
            write(carrying.run, b"a", content)
            carrying.transport.set_aside(TARGET, [b"a", b"not there"], job_id="job", attempt=1)
            assert not (carrying.run / "a").exists()
        kept = carrying.destination / ".labferry-superseded" / "job-1" / TARGET
        assert sorted(file.read_bytes() for file in kept.iterdir()) == [b"again", b"rotten"]

    def test_sweeping_spares_other_jobs_and_the_attempt_in_work(self, carrying: Carrying) -> None:
        incoming = carrying.destination / os.fsdecode(INCOMING)
        carrying.transport.sweep("job", keep_attempt=None)
        for folder in ("job-1", "job-2", "job-1-1", "other-1"):
            write(incoming / folder, b"0", b"half")
        carrying.transport.sweep("job", keep_attempt=2)
        assert sorted(os.listdir(incoming)) == ["job-1-1", "job-2", "other-1"]

    def test_room_and_the_check(self, carrying: Carrying) -> None:
        room = carrying.transport.free_bytes()
        assert room is None or room > 0
        carrying.transport.check()
        incoming = carrying.destination / os.fsdecode(INCOMING)
        assert not incoming.exists() or os.listdir(incoming) == []

    def test_a_limit_ends_in_the_middle(self, carrying: Carrying) -> None:
        """At 12 KiB/s this takes most of an hour; the limit ends when it has been asked for a few times."""
        write(carrying.source, b"a", os.urandom(30 << 20))
        limit = _EndingLimit()
        carrying.transport = self.open(carrying.destination, limit)
        copied = carrying.copy()
        assert limit.asked > _HELD_FOR
        assert carrying.progress.bytes == 30 << 20
        assert carrying.verify(copied).proven


_HELD_FOR = 5


class _EndingLimit(Bandwidth):
    """12 KiB/s, the first few times that somebody asks."""

    def __init__(self) -> None:
        super().__init__(upload_mbps=0.1)
        object.__setattr__(self, "asked", 0)

    asked: int

    def kib_per_second(self, local: object) -> int | None:
        object.__setattr__(self, "asked", self.asked + 1)
        return 12 if self.asked <= _HELD_FOR else None
