"""Which names a destination can't keep as they are, known before a byte moves. Nothing is ever renamed silently."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import groupby
from operator import attrgetter

import msgspec

from libs.run_tree.manifest import CACHE_FOLDER
from services.sync_engine.transfer.path_order import HasPath, InStep, by_path
from services.sync_engine.transfer.spilled_list import ListSorter
from services.sync_engine.transfer.system_error import shown
from services.sync_engine.transfer.transport import (
    CopiedFile,
    EntryKind,
    FailureKind,
    SourceEntry,
    TargetTraits,
    TransferError,
)


@dataclass(frozen=True, slots=True)
class NameProblem:
    """One name that can't land as it is, and why in one sentence."""

    path: bytes
    detail: str


def name_problems(
    entries: Sequence[SourceEntry], traits: TargetTraits, kept: Sequence[CopiedFile] = ()
) -> list[NameProblem]:
    """Every name that the destination can't keep, sorted by path. `kept` are files of the same run that it has."""
    problems = [problem for entry in entries for problem in _own_problems(entry.path, traits)]
    problems += _kinds_not_kept(entries, traits, kept)
    if not (traits.case_sensitive and traits.keeps_unicode_forms):
        problems += _collisions(entries, traits)
    return sorted(problems, key=lambda problem: (problem.path, problem.detail))


def refuse_impossible_names(
    entries: Sequence[SourceEntry], traits: TargetTraits, kept: Sequence[CopiedFile] = ()
) -> None:
    """TransferError NAME_NOT_POSSIBLE that names all of them. CONFIGURATION where a destination keeps no capitals: the
    run's own folder would be another one there."""
    if traits.alters_case:
        raise TransferError(
            FailureKind.CONFIGURATION,
            'the destination keeps names in another case than they are written in (a file "Case" as "case", or short '
            "names alone), and every run has names with capitals. It has to be set so that it keeps them, a Samba "
            'share by "preserve case = yes" and "short preserve case = yes"',
        )
    _refuse(name_problems(entries, traits, kept))


def refuse_taken_names(entries: Sequence[SourceEntry], present: Sequence[HasPath], traits: TargetTraits) -> None:
    """TransferError NAME_NOT_POSSIBLE for names that the destination has in another case, where that is one name to it.
    `present` is what it has, sorted by path as the entries are."""
    if traits.case_sensitive:
        return
    known = InStep(entries)
    others = {_as_seen_there(each.path, traits): each.path for each in present if known.at(each.path) is None}
    problems = []
    for entry in entries if others else ():
        other = others.get(_as_seen_there(entry.path, traits))
        if other is not None and _composed(other) != _composed(entry.path):
            detail = f"{shown(entry.path)}: the destination has {shown(other)}, which is the same name to it"
            problems.append(NameProblem(entry.path, detail))
    _refuse(problems)


def are_one_name(there: bytes, here: bytes, traits: TargetTraits) -> bool:
    """Whether the destination takes a name that it lists for this one, though it was given as another."""
    if traits.alters_unicode_forms and _composed(there) == _composed(here):
        # It may be this very name, as it lists it.
        return False
    return there != here and _as_seen_there(there, traits) == _as_seen_there(here, traits)


def _composed(path: bytes) -> str:
    # A server may list a name in another Unicode form than it was given.
    return unicodedata.normalize("NFC", path.decode("utf-8", errors="surrogateescape"))


def _refuse(problems: Sequence[NameProblem]) -> None:
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise TransferError(
            FailureKind.NAME_NOT_POSSIBLE, problems[0].detail + more, [problem.path for problem in problems]
        )


def _own_problems(path: bytes, traits: TargetTraits) -> Iterable[NameProblem]:
    name = path.rpartition(b"/")[2]
    if len(name) > traits.max_name_bytes:
        yield NameProblem(
            path, f"{shown(path)}: the name has {len(name)} bytes, the destination takes {traits.max_name_bytes}"
        )
    if not traits.keeps_any_bytes and not _is_utf8(name):
        yield NameProblem(path, f"{shown(path)}: the name is not UTF-8, which the destination needs")
    elif traits.alters is not None and traits.alters.search(name.decode(errors="surrogateescape")):
        yield NameProblem(path, f"{shown(path)}: the destination would refuse it, or keep it under another name")


def _kinds_not_kept(
    entries: Sequence[SourceEntry], traits: TargetTraits, kept: Sequence[CopiedFile]
) -> Iterable[NameProblem]:
    if not traits.keeps_symlinks:
        for entry in entries:
            if entry.kind is EntryKind.SYMLINK:
                yield NameProblem(entry.path, f"{shown(entry.path)}: the destination keeps no symlinks")
    if not traits.keeps_empty_folders:
        for path in _empty_folders(merge(entries, kept, key=by_path)):
            # Sealing puts the run's records there: it doesn't stay empty.
            if path != CACHE_FOLDER:
                yield NameProblem(path, f"{shown(path)}: the destination keeps no empty folders")


def _empty_folders(entries: Iterable[SourceEntry | CopiedFile]) -> Iterator[bytes]:
    # Between a folder and where its content would come lie only names that begin like it: few folders are open at once.
    undecided: list[bytes] = []
    for entry in entries:
        yield from (path for path in undecided if path + b"/" < entry.path and not entry.path.startswith(path + b"/"))
        undecided = [path for path in undecided if entry.path < path + b"/"]
        if entry.kind is EntryKind.DIRECTORY:
            undecided.append(entry.path)
    yield from undecided


class _SeenThere(msgspec.Struct, frozen=True, array_like=True, gc=False):
    name: bytes
    path: bytes


def _collisions(entries: Iterable[SourceEntry], traits: TargetTraits) -> Iterable[NameProblem]:
    seen = ListSorter(_SeenThere, attrgetter("name"))
    for entry in entries:
        seen.add(_SeenThere(_as_seen_there(entry.path, traits), entry.path))
    for _, group in groupby(seen.finish(), attrgetter("name")):
        paths = [one.path for one in group]
        for path in paths if len(paths) > 1 else ():
            other = paths[0] if path != paths[0] else paths[1]
            yield NameProblem(path, f"{shown(path)} and {shown(other)} are one name at the destination")


def _as_seen_there(path: bytes, traits: TargetTraits) -> bytes:
    text = path.decode("utf-8", errors="surrogateescape")
    if not traits.keeps_unicode_forms:
        text = unicodedata.normalize("NFC", text)
    if not traits.case_sensitive:
        # Normalised again: folding can take a composed character apart.
        text = unicodedata.normalize("NFC", text)
        folded = text.casefold() if traits.folds_sharp_s else "".join(map(_folded_alone, text))
        text = unicodedata.normalize("NFC", folded)
    return text.encode("utf-8", errors="surrogateescape")


def _folded_alone(character: str) -> str:
    """As those fold that make one letter of one."""
    folded = character.casefold()
    return folded if len(folded) == 1 else character.lower()


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
