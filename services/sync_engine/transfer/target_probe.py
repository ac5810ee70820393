"""Finding out what a destination really does with names and files, by trying in the incoming folder."""

from __future__ import annotations

import errno
import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from libs.run_tree.beneath import folder_beneath
from libs.run_tree.libc import rename_noreplace
from services.sync_engine.transfer.awkward_names import (
    AWKWARD,
    CAPITALS,
    SHARP_S,
    SHARP_S_FOLDED,
    alters_case,
    not_kept,
)
from services.sync_engine.transfer.destination_root import DestinationRoot, fsync_folder
from services.sync_engine.transfer.far_times import EXACT_ENOUGH, FAR_TIMES
from services.sync_engine.transfer.incoming import INCOMING, remove_tree
from services.sync_engine.transfer.landing import NO_EXCLUSIVE_RENAME, NO_LINKS
from services.sync_engine.transfer.system_error import destination_error
from services.sync_engine.transfer.transport import FailureKind, TargetTraits, TransferError

_LONGEST_LINUX_NAME = 255
_COMPOSED = unicodedata.normalize("NFC", "e\u0301")
_REFUSES_THE_NAME = frozenset(
    {errno.EILSEQ, errno.EINVAL, errno.ENAMETOOLONG, errno.ENOENT, errno.EACCES, errno.EPERM, errno.EEXIST}
)
_REFUSES_THE_TIME = frozenset({errno.EINVAL, errno.ERANGE, errno.EOVERFLOW, errno.EACCES, errno.EPERM})
# With digits at every place.
_TIME_NS = 1_234_567_891_987_654_321
# Nanoseconds, NTFS and SMB, microseconds, milliseconds, exFAT, seconds, FAT.
_STEPS_NS = (1, 100, 1_000, 1_000_000, 10_000_000, 1_000_000_000, 2_000_000_000)


def probe_target(root: DestinationRoot, folder: bytes) -> TargetTraits:
    """Makes a few empty files in `folder`, which is the attempt's own, and removes it: what a killed engine leaves is
    swept by the job's next attempt.

    TransferError when not even that works; CONFIGURATION where no file could get a name without replacing another, or
    keep its time.
    """
    root.ensure_folder(INCOMING)
    remove_tree(root, folder)
    try:
        with root.folder_of(folder) as (above, name):
            os.mkdir(name, dir_fd=above)
            try:
                with folder_beneath(name, dir_fd=above) as tried:
                    traits = _traits(tried)
            except OSError:
                # Why it failed is what matters; leftovers are swept.
                with suppress(OSError):
                    os.rmdir(name, dir_fd=above)
                raise
            os.rmdir(name, dir_fd=above)
    except OSError as error:
        raise destination_error(error, "trying names") from error
    if not (traits.exclusive_rename or traits.hard_links):
        raise TransferError(
            FailureKind.CONFIGURATION,
            "the destination can give a file a name that nothing has neither by an exclusive rename nor by a link",
        )
    if traits.mtime_step_ns is None:
        raise TransferError(FailureKind.CONFIGURATION, "the destination keeps no modification times")
    return traits


def _traits(folder: int) -> TargetTraits:
    lost = not_kept(set(AWKWARD).difference(_kept(folder, list(AWKWARD))))
    return TargetTraits(
        case_sensitive=not _one_name(folder, "Case", "cASE"),
        keeps_unicode_forms=not _one_name(folder, _COMPOSED, unicodedata.normalize("NFD", _COMPOSED)),
        keeps_any_bytes=bool(_kept(folder, ["\udcff\udcfe"])),
        keeps_symlinks=_keeps_symlinks(folder),
        max_name_bytes=_longest_name(folder),
        alters=None if lost is None else re.compile(lost),
        alters_case=alters_case(_listed(folder, CAPITALS)),
        alters_unicode_forms=_COMPOSED not in _listed(folder, [_COMPOSED]),
        folds_sharp_s=_one_name(folder, SHARP_S, SHARP_S_FOLDED),
        mtime_step_ns=_mtime_step_ns(folder),
        keeps_far_times=_keeps_far_times(folder),
        exclusive_rename=_gives_names(folder, rename_noreplace, NO_EXCLUSIVE_RENAME),
        hard_links=_gives_names(folder, _link, NO_LINKS),
        folder_sync=fsync_folder(folder),
    )


def _make(folder: int, name: str) -> None:
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder))


def _kept(folder: int, names: Sequence[str]) -> set[str]:
    """Those that are there again, in a listing and asked for by themselves. The folder is empty then as before."""
    with _tried(folder, names):
        return {name for name in set(names).intersection(_names(folder)) if _is_there(folder, name)}


def _listed(folder: int, names: Sequence[str]) -> list[str]:
    """What a listing has when these were made. The folder is empty then as before."""
    with _tried(folder, names):
        return _names(folder)


@contextmanager
def _tried(folder: int, names: Sequence[str]) -> Iterator[None]:
    try:
        for name in names:
            try:
                _make(folder, name)
            except OSError as error:
                if error.errno not in _REFUSES_THE_NAME:
                    raise
        yield
    finally:
        for name in _names(folder):
            os.unlink(name, dir_fd=folder)


def _names(folder: int) -> list[str]:
    # btrfs lists of an open folder what was there when it was opened.
    opened = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        return os.listdir(opened)
    finally:
        os.close(opened)


def _is_there(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _one_name(folder: int, name: str, other: str) -> bool:
    _make(folder, name)
    try:
        return _is_there(folder, other)
    finally:
        os.unlink(name, dir_fd=folder)


def _longest_name(folder: int) -> int:
    if _kept(folder, ["n" * _LONGEST_LINUX_NAME]):
        return _LONGEST_LINUX_NAME
    return os.fpathconf(folder, "PC_NAME_MAX")


def _keeps_symlinks(folder: int) -> bool:
    try:
        os.symlink("nowhere", "link", dir_fd=folder)
    except OSError as error:
        if error.errno in NO_LINKS | NO_EXCLUSIVE_RENAME:
            return False
        raise
    try:
        return os.readlink("link", dir_fd=folder) == "nowhere"
    finally:
        os.unlink("link", dir_fd=folder)


def _mtime_step_ns(folder: int) -> int | None:
    """None when a file's time isn't kept, or may not be set."""
    _make(folder, "dated")
    try:
        os.utime("dated", ns=(_TIME_NS, _TIME_NS), dir_fd=folder)
        off = abs(os.stat("dated", dir_fd=folder).st_mtime_ns - _TIME_NS)
    except PermissionError:
        return None
    finally:
        os.unlink("dated", dir_fd=folder)
    return next((step for step in _STEPS_NS if off < step), None)


def _keeps_far_times(folder: int) -> bool:
    _make(folder, "dated")
    try:
        for seconds in FAR_TIMES:
            os.utime("dated", (seconds, seconds), dir_fd=folder)
            if abs(os.stat("dated", dir_fd=folder).st_mtime - seconds) > EXACT_ENOUGH:
                return False
    except OSError as error:
        if error.errno in _REFUSES_THE_TIME:
            return False
        raise
    finally:
        os.unlink("dated", dir_fd=folder)
    return True


def _gives_names(folder: int, give: Callable[[int, bytes, int, bytes], None], cannot: frozenset[int]) -> bool:
    """Whether a name can be given so, and is refused where something has it."""
    try:
        for name in ("whole", "taken"):
            _make(folder, name)
        try:
            give(folder, b"whole", folder, b"taken")
        except FileExistsError:
            give(folder, b"whole", folder, b"free")
            return _is_there(folder, "free")
        return False
    except OSError as error:
        if error.errno in cannot:
            return False
        raise
    finally:
        for name in _names(folder):
            os.unlink(name, dir_fd=folder)


def _link(source_folder: int, source: bytes, target_folder: int, target: bytes) -> None:
    os.link(source, target, src_dir_fd=source_folder, dst_dir_fd=target_folder, follow_symlinks=False)
