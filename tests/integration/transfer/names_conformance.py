"""What every transport does with names, times, links and folders."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from services.sync_engine.transfer.sealed_file import SealedFile
from services.sync_engine.transfer.transport import (
    EvidenceGrade,
    FailureKind,
    TransferError,
    Transport,
)
from tests.integration.transfer.carrying import HOSTILE_NAMES, TARGET, Carrying, tree, write
from tests.integration.transfer.conforming import Conforming


class NamesConformance(Conforming):
    """Whatever a run holds arrives as it is, or is refused before the first byte."""

    def test_hostile_names_arrive_unchanged(self, carrying: Carrying) -> None:
        for number, name in enumerate(self.names):
            write(carrying.source, name, b"%d" % number)
            write(carrying.source, b"folder " + name[:200].rstrip(b" .") + b"/" + name, b"%d" % -number)
            write(carrying.source, b"below/" + name + b"/file", b"%d" % number)
        copied = carrying.copy()
        assert tree(carrying.run) == tree(carrying.source)
        outcome = carrying.verify(copied)
        assert (outcome.missing, outcome.differing, outcome.proven) == ((), (), True)
        assert (outcome.unexpected, outcome.oversize, outcome.grade) == ((), (), EvidenceGrade.E4)
        assert {one.path for one in outcome.evidence} == {file.path for file in copied}

    def test_empty_folders_with_hostile_names_arrive(self, carrying: Carrying) -> None:
        write(carrying.source, b"a file.txt", b"x")
        for name in self.names:
            os.makedirs(os.path.join(os.fsencode(carrying.source), name, b"below", name))
        if "empty folders" in self.keeps:
            carrying.copy()
            assert tree(carrying.run) == tree(carrying.source)
            return
        with pytest.raises(TransferError, match="keeps no empty folders"):
            carrying.copy()
        assert not carrying.run.exists()

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
        assert set(refused) <= set(refusal.value.paths), set(refused) - set(refusal.value.paths)
        assert b"plain.txt" not in refusal.value.paths
        assert not carrying.run.exists()

    def test_times_empty_files_and_deep_trees(self, carrying: Carrying) -> None:
        mtime_ns = 1_234_567_890_987_654_321
        write(carrying.source, b"/".join([b"deep"] * 30) + b"/data.bin", b"x" * 100, mtime_ns)
        write(carrying.source, b"empty.bin", b"", mtime_ns)
        deep = Path(*["deep"] * 30)
        for folder in (deep, *deep.parents[:-1]):
            os.utime(carrying.source / folder, ns=(mtime_ns, mtime_ns))
        copied = carrying.copy()
        assert tree(carrying.run) == tree(carrying.source)
        if "folder times" in self.keeps:
            for folder in (deep, *deep.parents[:-1]):
                assert abs((carrying.run / folder).stat().st_mtime_ns - mtime_ns) < self.mtime_step_ns
        for file in copied:
            there = os.stat(os.path.join(os.fsencode(carrying.run), file.path)).st_mtime_ns
            assert abs(there - mtime_ns) < self.mtime_step_ns
        assert carrying.verify(copied).proven

    def test_times_that_not_every_storage_holds(self, carrying: Carrying) -> None:
        years = {b"1969": -31_536_000, b"2107": 4_323_283_200}
        for name, seconds in years.items():
            write(carrying.source, name, b"x", seconds * 10**9)
        assert carrying.verify(carrying.copy()).proven, "the bytes matter most"
        kept = all((carrying.run / name.decode()).stat().st_mtime == seconds for name, seconds in years.items())
        assert kept == ("far times" in self.keeps)
        traits = carrying.transport.traits
        assert traits is not None
        assert traits.keeps_far_times == kept

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

    @pytest.mark.parametrize("level", [0, 1, 2], ids=["project", "Runs", "leaf"])
    def test_a_folder_on_the_way_that_has_another_spelling_there(
        self, carrying: Carrying, monkeypatch: pytest.MonkeyPatch, level: int
    ) -> None:
        write(carrying.source, b"a", b"pixels")
        carrying.copy()
        folds(carrying.transport, monkeypatch)
        assert carrying.verify(carrying.copy()).proven, "its own folder is no other"
        seal = SealedFile(os.fsencode(TARGET) + b"/.exlab-wizard/creation.json", b"synced", 1_600_000_000 * 10**9)
        carrying.transport.seal([seal], job_id="job", control=carrying.control)
        parts = list(TARGET.parts)
        parts[level] = parts[level].swapcase()
        before = carrying.destination.joinpath(*TARGET.parts[: level + 1])
        before.rename(carrying.destination.joinpath(*parts[: level + 1]))
        held = tree(carrying.destination)
        (carrying.source / "b").write_bytes(b"more")
        fresh = self.open(carrying.destination)
        for act in (
            carrying.copy,
            lambda: carrying.transport.seal([seal], job_id="job", control=carrying.control),
            lambda: fresh.seal([seal], job_id="job", control=carrying.control),
        ):
            with pytest.raises(TransferError) as refused:
                act()
            assert refused.value.kind is FailureKind.NAME_NOT_POSSIBLE
            for spelling in (TARGET.parts[: level + 1], parts[: level + 1]):
                assert "/".join(spelling) in refused.value.message
            assert tree(carrying.destination) == held, "nothing was sent"


def folds(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there from now on takes names in either case for one, if it doesn't anyway."""
    traits = transport.traits
    assert traits is not None
    monkeypatch.setattr(transport, "_traits", replace(traits, case_sensitive=False))
