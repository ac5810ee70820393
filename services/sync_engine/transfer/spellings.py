"""Folders of a run's path that a destination has under another spelling: where that is one name to it, what belongs to
two runs, or to two projects, would come together in one folder, and the records of one would replace the other's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from services.sync_engine.transfer.name_plan import are_one_name
from services.sync_engine.transfer.system_error import shown
from services.sync_engine.transfer.transport import FailureKind, TargetTraits, TransferError

# For a destination whose ways aren't known yet: what is ours is there under its own name, wherever that may be.
_ANY = TargetTraits(case_sensitive=False, max_name_bytes=255, keeps_unicode_forms=False, alters_unicode_forms=True)


def refuse_other_spellings(
    folders: Iterable[bytes], names_in: Callable[[bytes], Collection[bytes]], traits: TargetTraits | None
) -> None:
    """TransferError NAME_NOT_POSSIBLE when one of these folders, or one above it, isn't there as it is written here,
    but as another that is the same one to the destination. `names_in` lists a folder there, empty when it isn't there;
    where all names are different ones nothing is listed. `traits` None: they aren't known."""
    traits = traits or _ANY
    if traits.case_sensitive and traits.keeps_unicode_forms:
        return
    there: dict[bytes, Collection[bytes]] = {}
    for folder in folders:
        _look(folder, names_in, there, traits)


def _look(
    folder: bytes,
    names_in: Callable[[bytes], Collection[bytes]],
    there: dict[bytes, Collection[bytes]],
    traits: TargetTraits,
) -> None:
    above = b""
    for name in filter(None, folder.split(b"/")):
        if above not in there:
            there[above] = frozenset(names_in(above))
        place = above + b"/" + name if above else name
        if name not in there[above]:
            other = next((one for one in sorted(there[above]) if are_one_name(one, name, traits)), None)
            if other is not None:
                raise _refusal(place, above + b"/" + other if above else other)
            if not traits.alters_unicode_forms:
                return
        above = place


def _refusal(here: bytes, there: bytes) -> TransferError:
    return TransferError(
        FailureKind.NAME_NOT_POSSIBLE,
        f"{shown(here)}: the destination has {shown(there)}, which is the same folder to it. If that belongs to another"
        " project or run, rename one of the two here: together their records would replace each other's. If it belongs"
        f" to this one, rename it at the destination to exactly {shown(here.rpartition(b'/')[2])}. Then retry",
    )
