"""What a host behind ssh does with names, by trying: its file system may be any, and a script there can ask it."""

from __future__ import annotations

import os
import re
import unicodedata

from services.sync_engine.transfer import far_scripts as scripts
from services.sync_engine.transfer.awkward_names import (
    AWKWARD,
    CAPITALS,
    SHARP_S,
    SHARP_S_FOLDED,
    alters_case,
    not_kept,
)
from services.sync_engine.transfer.ssh_session import SshSession
from services.sync_engine.transfer.transport import FailureKind, TargetTraits, TransferError

_FORMS = tuple(unicodedata.normalize(form, "e\u0301").encode() for form in ("NFC", "NFD"))
_NOT_UTF8 = b"\xff\xfe"
_LENGTHS = (255, 200, 143, 100)


def try_names(ssh: SshSession, root: bytes, folder: bytes) -> TargetTraits:
    """Makes empty files in `folder` below the destination's own, `root`, and removes it. CONFIGURATION where no file
    could get a name without replacing another."""
    tried = [*CAPITALS, *AWKWARD, *("n" * length for length in _LENGTHS)]
    names = [os.fsencode(name) for name in tried]
    head = [root, folder, *_FORMS, _NOT_UTF8, SHARP_S.encode(), SHARP_S_FOLDED.encode(), *names]
    words, _, listing = ssh.must("trying names", scripts.PROBE, head).partition(b"\0")
    said, listed = set(words.split()), set(listing.split(b"\0"))
    if b"hard_links" not in said:
        raise TransferError(
            FailureKind.CONFIGURATION, "the destination has no hard links, which landing without replacing needs"
        )
    kept = {name for number, name in enumerate(tried) if b"there_%d" % number in said and os.fsencode(name) in listed}
    lost = not_kept(name for name in AWKWARD if name not in kept)
    return TargetTraits(
        case_sensitive=b"one_case" not in said,
        max_name_bytes=next((length for length in _LENGTHS if "n" * length in kept), _LENGTHS[-1]),
        keeps_unicode_forms=b"one_form" not in said,
        keeps_any_bytes=b"any_bytes" in said,
        keeps_symlinks=b"symlinks" in said,
        keeps_far_times=b"far_times" in said,
        alters=None if lost is None else re.compile(lost),
        alters_case=alters_case({os.fsdecode(name) for name in listed}),
        alters_unicode_forms=_FORMS[0] not in listed,
        folds_sharp_s=b"sharp_s" in said,
    )
