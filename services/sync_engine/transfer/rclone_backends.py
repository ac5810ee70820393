"""What kinds of storage a remote of rclone's configuration leads to: some kinds only wrap other remotes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from services.sync_engine.transfer.rclone_daemon import RcloneDaemon
from services.sync_engine.transfer.transport import FailureKind, TransferError

_LOCAL = "local"
# What reads the stored bytes whenever it is asked for a hash. `hasher` repeats the hash of what was once sent, and
# servers of the cloud what they noted at the upload: neither sees what became of the bytes since.
_READ_TO_HASH = frozenset({_LOCAL, "sftp", "alias"})
# Answers from what it keeps on this machine.
_CACHES = frozenset({"cache"})
_MOST_WRAPPED = 20
# Of all that says how a remote is used, its connection string alone has the last word.
_FOLLOWS_LINKS = re.compile(r",\s*(?:[a-z]+\.)?skip_links\s*=\s*(?!true\b)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RcloneBackends:
    """The kinds on all ways from a remote to what it wraps, by rclone's names for them."""

    kinds: frozenset[str]

    @property
    def read_to_hash(self) -> bool:
        """A hash it gives is that of the bytes it holds now."""
        return self.kinds <= _READ_TO_HASH

    @property
    def is_local(self) -> bool:
        """A folder of this machine, under the names that were given."""
        return self.kinds <= {_LOCAL, "alias"}

    @property
    def is_sftp(self) -> bool:
        """Where a path leads through symlinks unless rclone is told otherwise; whatever wraps it."""
        return "sftp" in self.kinds

    @property
    def is_s3(self) -> bool:
        """A bucket of S3, under the names that were given."""
        return "s3" in self.kinds and self.kinds <= {"s3", "alias"}

    def refuse_unprovable(self, name: str) -> None:
        """CONFIGURATION when what is read back could come from this machine's memory, where nothing can empty it: the
        names of what a wrapped folder really holds are the wrapper's secret."""
        if self.kinds & _CACHES or (_LOCAL in self.kinds and not self.is_local):
            raise TransferError(
                FailureKind.CONFIGURATION,
                f"{name} wraps a folder of this machine or a cache ({', '.join(sorted(self.kinds))}): what is read "
                "back would come from this machine's memory and prove nothing. Let it wrap a remote that reaches the "
                "server itself, such as sftp or smb",
            )


def backends_of(daemon: RcloneDaemon, name: str) -> RcloneBackends:
    """Follows the remote's configuration. CONFIGURATION when it wraps itself or more than twenty others."""
    kinds: set[str] = set()
    to_follow, followed = [name], 0
    while to_follow:
        followed += 1
        if followed > _MOST_WRAPPED:
            raise TransferError(FailureKind.CONFIGURATION, f"{name} wraps too many other remotes")
        options = daemon.must("reading its configuration", "config/get", name=to_follow.pop())
        kinds.add(options.get("type", "unknown"))
        for wrapped in _wrapped(options):
            _refuse_followed_links(name, wrapped)
            kind, remote = _leads_to(wrapped)
            if kind is not None:
                kinds.add(kind)
            if remote is not None:
                to_follow.append(remote)
    return RcloneBackends(frozenset(kinds))


def _refuse_followed_links(name: str, place: str) -> None:
    if _FOLLOWS_LINKS.search(place):
        raise TransferError(
            FailureKind.CONFIGURATION,
            f"{name} wraps a remote with skip_links in its connection string ({place}), which goes before what "
            "Labferry says: a symlink would be taken for the file that it leads to. Take skip_links out",
        )


def _wrapped(options: Mapping[str, str]) -> Iterator[str]:
    if "remote" in options:
        yield options["remote"]
    for upstream in shlex.split(options.get("upstreams", "")):
        # `combine` names a folder for each, `union` may say how each is used behind it.
        yield upstream.partition("=")[2] if options.get("type") == "combine" else upstream


def _leads_to(place: str) -> tuple[str | None, str | None]:
    """The kind of storage where the place says it itself, or else the remote that it names."""
    begin, colon, _ = place.removeprefix(":").partition(":")
    named = begin.partition(",")[0]
    if place.startswith(":"):
        return named, None
    if not colon or "/" in named:
        return _LOCAL, None
    return None, named
