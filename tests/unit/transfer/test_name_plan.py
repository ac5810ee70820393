"""Names that a destination can't keep are found before a byte moves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.sync_engine.transfer.name_plan import (
    TargetTraits,
    are_one_name,
    name_problems,
    refuse_impossible_names,
)
from services.sync_engine.transfer.transport import EntryKind, FailureKind, SourceEntry, TransferError

LINUX = TargetTraits(case_sensitive=True, max_name_bytes=255)
WINDOWS = TargetTraits(case_sensitive=False, max_name_bytes=255, keeps_any_bytes=False)
MAC = TargetTraits(case_sensitive=False, max_name_bytes=255, keeps_unicode_forms=False, keeps_any_bytes=False)


def entries(*paths: str | bytes) -> list[SourceEntry]:
    encoded = [path if isinstance(path, bytes) else path.encode() for path in paths]
    return [SourceEntry(path, EntryKind.FILE, 1, 0, 0, 0) for path in encoded]


def problem_paths(names: list[SourceEntry], traits: TargetTraits) -> list[bytes]:
    return [problem.path for problem in name_problems(names, traits)]


def test_linux_keeps_everything() -> None:
    assert problem_paths(entries("a", "A", b"\xff", "e\u0301", "\u00e9", "n" * 255, "Straße", "STRASSE"), LINUX) == []


def test_names_that_differ_by_case_alone_collide() -> None:
    names = entries("RUN.DAT", "a/run.dat", "run.dat", "other", "Straße", "STRASSE")
    assert problem_paths(names, WINDOWS) == [b"RUN.DAT", b"STRASSE", "Straße".encode(), b"run.dat"]


def test_where_letters_are_compared_one_by_one_a_sharp_s_is_not_two() -> None:
    letter_by_letter = replace(WINDOWS, folds_sharp_s=False)
    assert problem_paths(entries("Straße", "STRASSE", "ÄÖ", "äö"), letter_by_letter) == ["ÄÖ".encode(), "äö".encode()]
    assert problem_paths(entries("Straße", "STRAẞE"), letter_by_letter) == ["STRAẞE".encode(), "Straße".encode()]


@pytest.mark.parametrize(
    ("there", "here", "traits", "one"),
    [
        ("alpha", "Alpha", WINDOWS, True),
        ("Alpha", "Alpha", WINDOWS, False),
        ("alpha", "Alpha", LINUX, False),
        ("beta", "Alpha", WINDOWS, False),
        ("e\u0301", "\u00e9", MAC, True),
        ("e\u0301", "\u00e9", WINDOWS, True),
        ("e\u0301", "\u00e9", replace(MAC, alters_unicode_forms=True), False),
        ("E\u0301", "\u00e9", replace(MAC, alters_unicode_forms=True), True),
    ],
)
def test_what_is_listed_may_be_the_same_name(there: str, here: str, traits: TargetTraits, one: bool) -> None:
    assert are_one_name(there.encode(), here.encode(), traits) is one


def test_folders_that_collide_make_their_files_collide() -> None:
    assert problem_paths(entries("A", "A/x", "a", "a/x", "a/y"), WINDOWS) == [b"A", b"A/x", b"a", b"a/x"]


def test_names_that_differ_by_unicode_form_alone_collide() -> None:
    names = entries("e\u0301", "\u00e9", "E\u0301")
    assert problem_paths(names, TargetTraits(True, 255, keeps_unicode_forms=False)) == [
        "e\u0301".encode(),
        "\u00e9".encode(),
    ]
    assert len(problem_paths(names, MAC)) == 3


def test_too_long_and_not_utf_8() -> None:
    traits = TargetTraits(True, 143, keeps_any_bytes=False)
    assert problem_paths(entries("n" * 143, "d/" + "n" * 144, b"d/\xff"), traits) == [b"d/" + b"n" * 144, b"d/\xff"]


def test_the_refusal_names_all() -> None:
    with pytest.raises(TransferError) as refusal:
        refuse_impossible_names(entries("a", "A", "b"), WINDOWS)
    assert refusal.value.kind is FailureKind.NAME_NOT_POSSIBLE
    assert refusal.value.paths == (b"A", b"a")
    assert "A and a are one name" in refusal.value.message
    refuse_impossible_names(entries("a", "b"), WINDOWS)
