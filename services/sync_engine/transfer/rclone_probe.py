"""What a server behind rclone really does with names, by trying: what rclone knows is of the backend's kind alone."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from services.sync_engine.transfer.awkward_names import (
    AWKWARD,
    CAPITALS,
    SHARP_S,
    SHARP_S_FOLDED,
    alters_case,
    not_kept,
)
from services.sync_engine.transfer.private_folder import private_folder, write_private
from services.sync_engine.transfer.rclone_daemon import RcloneDaemon, RcloneError
from services.sync_engine.transfer.rclone_failures import RCLONE_FAILURES
from services.sync_engine.transfer.rclone_names import as_listed
from services.sync_engine.transfer.tool_failures import tool_failure

_LOWER, _LAST = "cASE", "last"
_COMPOSED, _TAKEN_APART = (unicodedata.normalize(form, "e\u0301") for form in ("NFC", "NFD"))
_LENGTHS = (255, 200, 143, 100)
# A server that is busy with a folder's names was seen to miss one of them, once in a hundred askings.
_ASKINGS = 3


@dataclass(frozen=True, slots=True)
class TriedNames:
    """`not_kept` finds what a segment must not hold; None: nothing was found."""

    case_sensitive: bool
    keeps_unicode_forms: bool
    max_name_bytes: int
    not_kept: str | None
    alters_case: bool
    alters_unicode_forms: bool
    folds_sharp_s: bool


def try_names(daemon: RcloneDaemon, fs: str, folder: bytes, altered: re.Pattern[str]) -> TriedNames:
    """Puts a byte under each name that isn't known to be `altered`, and looks which ones are there again, in a listing
    and asked for by themselves. The folder is the caller's to remove. TransferError when a plain name doesn't work."""
    lengths = ["n" * length for length in _LENGTHS]
    plain, awkward = [*CAPITALS, _COMPOSED], [name for name in AWKWARD if not altered.search(name)]
    with private_folder() as private:
        write_private(private / "x", [b"x"])

        def put(name: str) -> None:
            daemon.call(
                "operations/copyfile",
                srcFs=str(private),
                srcRemote="x",
                dstFs=fs,
                dstRemote=f"{folder.decode()}/{name}",
                _config={"NoCheckDest": True},
            )

        def put_or_not(name: str) -> None:
            try:
                put(name)
            except RcloneError:
                # Refused, or lost on its way: the listing tells.
                return

        def put_plain(name: str) -> None:
            try:
                put(name)
            except RcloneError as refusal:
                raise tool_failure(RCLONE_FAILURES, "trying names", None, refusal.words) from refusal

        daemon.attend(plain, put_plain)
        others = [SHARP_S, *awkward, *lengths]
        daemon.attend(others, put_or_not)
        tried = [*plain, *others]
        there = dict(zip(tried, daemon.attend(tried, lambda name: _is_there(daemon, fs, folder, name)), strict=True))
        listed = _listed(daemon, fs, folder)
        kept = {name for name in tried if there[name] and name in listed}
        if len(kept) < len(tried):
            # A storage that was full by then kept none of them, and says nothing of names.
            daemon.attend([_LAST], put_plain)
    return TriedNames(
        case_sensitive=not _is_ever_there(daemon, fs, folder, _LOWER),
        keeps_unicode_forms=not _is_ever_there(daemon, fs, folder, _TAKEN_APART) and _COMPOSED in kept,
        max_name_bytes=next((len(name) for name in lengths if name in kept), _LENGTHS[-1]),
        not_kept=not_kept(name for name in awkward if name not in kept),
        alters_case=alters_case(listed),
        alters_unicode_forms=_COMPOSED not in kept,
        folds_sharp_s=SHARP_S not in kept or _is_ever_there(daemon, fs, folder, SHARP_S_FOLDED),
    )


def _is_ever_there(daemon: RcloneDaemon, fs: str, folder: bytes, name: str) -> bool:
    askings = [name] * _ASKINGS
    return any(daemon.attend(askings, lambda one: _is_there(daemon, fs, folder, one, unknown=True), workers=1))


def _is_there(daemon: RcloneDaemon, fs: str, folder: bytes, name: str, *, unknown: bool = False) -> bool:
    """`unknown` where the server says neither."""
    try:
        item = daemon.call("operations/stat", fs=fs, remote=f"{folder.decode()}/{name}")["item"]
    except RcloneError:
        return unknown
    return item is not None


def _listed(daemon: RcloneDaemon, fs: str, folder: bytes) -> set[str]:
    found: Sequence[dict[str, Any]] = daemon.must(
        "listing", "operations/list", fs=fs, remote=folder.decode(), opt={"noModTime": True, "noMimeType": True}
    )["list"]
    return {as_listed(item["Name"]).decode() for item in found}
