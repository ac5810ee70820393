"""How every transport reads back, seals and sets aside."""

from __future__ import annotations

import os
import shutil
from pathlib import Path, PurePosixPath

import pytest

from libs.run_tree.manifest import MANIFEST_PATH, ManifestEntry, format_manifest
from services.sync_engine.transfer.mark import new_mark
from services.sync_engine.transfer.sealed_file import SealedFile
from services.sync_engine.transfer.transport import FailureKind, ProgressPhase, TransferError
from tests.integration.sync_engine.running_engine import sha256sum_agrees
from tests.integration.transfer.carrying import TARGET, Carrying, tree, write
from tests.integration.transfer.conforming import Conforming

LEFTOVER = b".exlab-wizard/copy-mark.0123456789abcdef0123456789abcdef.tmp"


class ProofConformance(Conforming):
    """What is proven is what the destination holds."""

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

    def test_an_empty_folder_in_its_place_is_not_the_destination(self, carrying: Carrying, tmp_path: Path) -> None:
        """What a mount leaves that goes away: in the first session, too, of those that the engine has with it."""
        write(carrying.source, b"a", b"x")
        copied = carrying.copy()
        assert carrying.verify(copied).proven
        away = tmp_path / "away"
        away.mkdir()
        for name in os.listdir(carrying.destination):
            shutil.move(carrying.destination / name, away / name)
        if "empty folders" not in self.keeps:
            # There is nothing by which it could be known again.
            assert carrying.verify(copied).missing == (b"a",)
            return
        for act in (carrying.transport.check, carrying.copy, lambda: carrying.verify(copied)):
            with pytest.raises(TransferError, match="another folder than before") as refused:
                act()
            assert refused.value.kind is FailureKind.NETWORK
        assert os.listdir(carrying.destination) == []
        for name in os.listdir(away):
            shutil.move(away / name, carrying.destination / name)
        assert carrying.verify(copied).proven

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
                ],
                job_id="job",
                control=carrying.control,
            )
        assert (carrying.run / ".exlab-wizard" / "creation.json").read_bytes() == b"synced"
        assert sorted(os.listdir(carrying.run / ".exlab-wizard")) == ["checksums.sha256", "creation.json"]
        assert sha256sum_agrees(carrying.run) == len(copied)
        assert carrying.verify(copied).unexpected == ()

    def test_digests_and_setting_aside(self, carrying: Carrying) -> None:
        write(carrying.source, b"a", b"rotten")
        write(carrying.source, b"b c", b"good")
        copied = {file.path: file for file in carrying.copy()}
        assert carrying.transport.digests(TARGET, [b"a", b"not there"], control=carrying.control) == {
            b"a": copied[b"a"].sha256
        }
        assert carrying.transport.digests(PurePosixPath("never"), [b"a"], control=carrying.control) == {}
        for content in (b"rotten", b"again"):
            write(carrying.run, b"a", content)
            carrying.transport.set_aside(
                TARGET, [b"a", b"not there"], job_id="job", attempt=1, control=carrying.control
            )
            assert not (carrying.run / "a").exists()
        kept = carrying.destination / ".labferry-superseded" / "job-1" / TARGET
        assert sorted(file.read_bytes() for file in kept.iterdir()) == [b"again", b"rotten"]

    def test_one_file_is_enough_to_know_a_copy_by(self, carrying: Carrying) -> None:
        write(carrying.source, b"a", b"x")
        write(carrying.source, b"sub/-b c", b"x")

        def holds_any(*paths: bytes, target: PurePosixPath = TARGET) -> bool:
            return carrying.transport.holds_any(target, paths, control=carrying.control)

        assert not holds_any(b"a", b"sub/-b c")
        carrying.copy()
        assert holds_any(b"never", b"sub/-b c")
        assert holds_any(b"a")
        assert not holds_any(b"never", b"a/b", b"sub/a")
        assert not holds_any(b"a", b"sub/-b c", target=PurePosixPath("never"))

    def test_a_mark_lies_beside_the_copy_for_as_long_as_it_is_looked_for(self, carrying: Carrying) -> None:
        write(carrying.source, b"a", b"x")
        copied = carrying.copy()
        write(carrying.run, LEFTOVER, b"of an engine that was killed")
        mark = new_mark()
        with pytest.raises(LookupError), carrying.transport.marked(TARGET, mark):
            assert os.listdir(carrying.run / ".exlab-wizard") == [os.fsdecode(mark)]
            outcome = carrying.verify(copied)
            assert (outcome.proven, outcome.unexpected) == (True, ())
            raise LookupError
        assert tree(carrying.run / ".exlab-wizard") == {}
