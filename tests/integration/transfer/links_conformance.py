"""What transports that can tell do with symlinks that somebody else put at the destination: they lead nowhere."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from services.sync_engine.transfer.incoming import INCOMING
from services.sync_engine.transfer.mark import new_mark
from services.sync_engine.transfer.sealed_file import SealedFile
from services.sync_engine.transfer.superseded import SUPERSEDED
from services.sync_engine.transfer.transport import FailureKind, TransferError
from tests.integration.transfer.carrying import TARGET, Carrying, tree, write
from tests.integration.transfer.conforming import Conforming

_CREATION = os.fsencode(TARGET) + b"/.exlab-wizard/creation.json"


class LinksConformance(Conforming):
    """`elsewhere` is a folder outside the equipment's; nothing in it is ever written, moved or removed."""

    @pytest.fixture
    def elsewhere(self, tmp_path: Path) -> Path:
        folder = tmp_path / "elsewhere"
        for name in (b"a", b"creation.json", b"job-1/theirs"):
            write(folder, name, b"another's")
        return folder

    def refused(self, elsewhere: Path, act: Callable[[], object]) -> None:
        before = tree(elsewhere)
        with pytest.raises(TransferError) as refusal:
            act()
        assert tree(elsewhere) == before
        assert refusal.value.kind is FailureKind.DESTINATION_FILE_DIFFERS, refusal.value.message

    def seal(self, carrying: Carrying) -> None:
        carrying.transport.seal([SealedFile(_CREATION, b"synced", 1)], job_id="job", control=carrying.control)

    def test_a_seal_never_follows_one(self, carrying: Carrying, elsewhere: Path) -> None:
        carrying.run.mkdir(parents=True)
        (carrying.run / ".exlab-wizard").symlink_to(elsewhere)
        self.refused(elsewhere, lambda: self.seal(carrying))

        def mark() -> None:
            with carrying.transport.marked(TARGET, new_mark()):
                raise AssertionError("it is nowhere to be looked for")

        self.refused(elsewhere, mark)

    def test_a_sealed_file_takes_the_place_of_one(self, carrying: Carrying, elsewhere: Path) -> None:
        (carrying.run / ".exlab-wizard").mkdir(parents=True)
        (carrying.run / ".exlab-wizard" / "creation.json").symlink_to(elsewhere / "creation.json")
        before = tree(elsewhere)
        self.seal(carrying)
        assert tree(elsewhere) == before
        assert tree(carrying.run / ".exlab-wizard") == {b"creation.json": b"synced"}

    @pytest.mark.parametrize("name", ["sub", "sub/a", "empty", "."])
    @pytest.mark.parametrize("at_last", [False, True], ids=["before", "at the last moment"])
    def test_nothing_lands_through_one(self, carrying: Carrying, elsewhere: Path, name: str, at_last: bool) -> None:
        write(carrying.source, b"sub/a", b"ours")
        (carrying.source / "empty").mkdir()
        link = Path(os.path.normpath(carrying.run / name))

        def put(_: object) -> None:
            if link.exists():
                link.rename(carrying.destination / "was here")
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(elsewhere / "a" if name == "sub/a" else elsewhere)

        if at_last:
            self.refused(elsewhere, lambda: carrying.copy(put))
        else:
            put(None)
            self.refused(elsewhere, carrying.copy)
        assert link.is_symlink()

    @pytest.mark.parametrize("name", ["sub/a", "sub", ".", "..", "../.."])
    def test_what_one_leads_to_is_no_copy(self, carrying: Carrying, tmp_path: Path, name: str) -> None:
        for path in (b"a", b"sub/a", b"sub/b"):
            write(carrying.source, path, b"content of " + path)
        copied = carrying.copy()
        assert carrying.verify(copied).proven
        place = Path(os.path.normpath(carrying.run / name))
        moved = Path(shutil.move(place, tmp_path / "moved"))
        place.symlink_to(carrying.source / name if name.startswith("sub") else moved)
        before = tree(tmp_path / "moved") if moved.is_dir() else moved.read_bytes()
        try:
            outcome = carrying.verify(copied)
        except TransferError as refusal:
            assert refusal.kind is FailureKind.DESTINATION_FILE_DIFFERS
        else:
            assert not outcome.proven
            wrong = {*outcome.missing, *outcome.differing}
            assert wrong == {file.path for file in copied if (file.path + b"/").startswith(os.fsencode(name) + b"/")}
        with pytest.raises(TransferError) as refused:
            carrying.copy()
        assert refused.value.kind is FailureKind.DESTINATION_FILE_DIFFERS
        assert place.is_symlink()
        assert before == (tree(tmp_path / "moved") if moved.is_dir() else moved.read_bytes())

    def test_one_in_the_place_of_a_file_is_set_aside(self, carrying: Carrying) -> None:
        write(carrying.source, b"a", b"ours")
        carrying.copy()
        (carrying.run / "a").unlink()
        (carrying.run / "a").symlink_to(carrying.source / "a")
        set_aside = carrying.transport.set_aside(TARGET, [b"a"], job_id="job", attempt=1, control=carrying.control)
        assert set_aside == [b"a"]
        assert carrying.verify(carrying.copy()).proven
        assert not (carrying.run / "a").is_symlink()
        assert (carrying.source / "a").read_bytes() == b"ours"

    def test_nothing_is_moved_or_removed_through_one(self, carrying: Carrying, elsewhere: Path) -> None:
        write(carrying.run, b"a", b"rotten")
        control = carrying.control
        aside = carrying.destination / os.fsdecode(SUPERSEDED)
        aside.symlink_to(elsewhere)

        def set_aside() -> None:
            carrying.transport.set_aside(TARGET, [b"a"], job_id="job", attempt=1, control=control)

        self.refused(elsewhere, set_aside)
        assert (carrying.run / "a").read_bytes() == b"rotten"
        (carrying.destination / os.fsdecode(INCOMING)).symlink_to(elsewhere)
        self.refused(elsewhere, carrying.transport.check)
        before = tree(elsewhere)
        try:
            carrying.transport.sweep("job", keep_attempt=None, control=control)
        except TransferError as refusal:
            assert refusal.kind is FailureKind.DESTINATION_FILE_DIFFERS
        assert tree(elsewhere) == before


class RootLinkConformance(Conforming):
    """Where the equipment's folder at the destination can be moved."""

    def test_the_folder_of_a_destination_may_lie_behind_one(self, carrying: Carrying, tmp_path: Path) -> None:
        write(carrying.source, b"sub/a", b"ours")
        carrying.destination.rename(tmp_path / "really here")
        carrying.destination.symlink_to(tmp_path / "really here")
        assert carrying.verify(carrying.copy()).proven
        assert carrying.verify(carrying.copy()).proven
