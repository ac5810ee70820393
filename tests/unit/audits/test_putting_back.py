"""Files of a copy are put back together, and by themselves where one of them can't be."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pytest

from services.sync_engine.audits.putting_back import NotPutBack, PuttingBack, behind_others
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import EntryKind, FailureKind, SourceEntry, TransferError


def _file(path: bytes) -> SourceEntry:
    return SourceEntry(path, EntryKind.FILE, 1, 0, 0, 0)


class _Storage:
    """Fails whatever one of its odd files is in, after the files before it were done."""

    def __init__(self, *, immovable: Collection[bytes] = (), unsendable: Collection[bytes] = ()) -> None:
        self.immovable = immovable
        self.unsendable = unsendable
        self.kind = FailureKind.NETWORK
        self.away = False
        self.aside: list[bytes] = []
        self.there: set[bytes] = set()
        self.tries = 0
        self.refused: list[NotPutBack] = []

    def set_aside(self, files: Sequence[SourceEntry]) -> None:
        for file in files:
            if file.path in self.immovable:
                raise TransferError(self.kind, "it is a folder")
            self.aside.append(file.path)
            self.there.discard(file.path)

    def send(self, files: Sequence[SourceEntry]) -> None:
        self.tries += 1
        for file in files:
            if file.path in self.unsendable:
                raise TransferError(self.kind, "it is taken")
            self.there.add(file.path)

    def check(self) -> None:
        if self.away:
            raise TransferError(FailureKind.NETWORK, "nobody answers")

    def put_back(self, paths: Sequence[bytes]) -> None:
        work = PuttingBack(self.set_aside, self.send, self.check, TransferControl(), self.refused)
        work.put_back([_file(path) for path in paths])


def test_one_file_that_cannot_be_moved_keeps_no_other_away() -> None:
    paths = [b"%02d" % number for number in range(20)]
    storage = _Storage(immovable=[b"07"])
    storage.put_back(paths)
    assert storage.there == {*paths} - {b"07"}
    assert storage.refused == [NotPutBack(b"07", "it is a folder")]


def test_a_file_that_was_put_back_is_not_set_aside_again() -> None:
    paths = [b"%02d" % number for number in range(20)]
    storage = _Storage(unsendable=[b"13"])
    storage.put_back(paths)
    assert storage.there == {*paths} - {b"13"}
    assert storage.aside == paths
    assert storage.refused == [NotPutBack(b"13", "it is taken")]


def test_many_odd_files_keep_none_of_the_others_away() -> None:
    paths = [b"%04d" % number for number in range(1200)]
    odd = paths[::3]
    storage = _Storage(immovable=odd)
    storage.put_back(paths)
    assert storage.there == {*paths} - {*odd}
    assert [one.path for one in storage.refused] == odd


def test_where_nothing_can_be_put_back_not_every_file_is_tried_by_itself() -> None:
    paths = [b"%05d" % number for number in range(20_000)]
    storage = _Storage(unsendable=paths)
    storage.put_back(paths)
    assert storage.there == set()
    assert storage.tries < 1000
    assert any("more files" in one.problem for one in storage.refused)


@pytest.mark.parametrize("kind", [FailureKind.DESTINATION_FULL, FailureKind.AUTHENTICATION])
def test_what_would_befall_every_file_ends_the_repair(kind: FailureKind) -> None:
    storage = _Storage(unsendable=[b"b"])
    storage.kind = kind
    with pytest.raises(TransferError, match="it is taken"):
        storage.put_back([b"a", b"b", b"c"])
    assert (storage.tries, storage.refused) == (1, [])


def test_a_destination_that_is_away_ends_the_repair() -> None:
    storage = _Storage(unsendable=[b"b"])
    storage.away = True
    with pytest.raises(TransferError, match="nobody answers"):
        storage.put_back([b"a", b"b", b"c"])
    assert (storage.tries, storage.refused) == (1, [])


def test_files_whose_folder_is_something_else_are_told_by_what_it_is() -> None:
    found = behind_others([_file(b"a"), _file(b"s/b"), _file(b"s/t/c"), _file(b"sub/d")], [b"a", b"s"])
    assert [file.path for file in found.free] == [b"a", b"sub/d"]
    (blocked,) = found.blocked
    assert (blocked.path, "2 files" in blocked.problem) == (b"s", True)
