"""A remote that reaches its storage by SFTP. The server follows symlinks wherever a path leads through one; rclone is
told to leave them out of what it lists, so a name that is there and isn't listed is one, or a pipe or the like.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from services.sync_engine.transfer.far_side import FarName
from services.sync_engine.transfer.present import Different, differing_error
from services.sync_engine.transfer.rclone_daemon import RcloneDaemon
from services.sync_engine.transfer.rclone_listing import RcloneListing

_MOST_KNOWN = 4096


class RcloneSftp:
    """Whoever may write there can put a link after the look; what is read back afterwards is listed anew. Every failure
    is a TransferError."""

    def __init__(self, daemon: RcloneDaemon, listing: RcloneListing) -> None:
        self._daemon = daemon
        self._listing = listing
        self._known: set[bytes] = set()
        self._made: set[bytes] = set()

    def refuse_links(self, folders: Iterable[bytes], *, to_be_made: bool = False) -> None:
        """DESTINATION_FILE_DIFFERS when one of these folders, or one above it, is there and is something else.
        `to_be_made`: those that aren't there will be, by this session, and what is in them is not looked at again."""
        there: dict[bytes, frozenset[bytes]] = {}
        for folder in folders:
            if len(self._known) > _MOST_KNOWN:
                self._known.clear()
            missing = self._first_missing(folder, there)
            if missing is not None and to_be_made:
                self._made.add(missing)

    def _first_missing(self, folder: bytes, there: dict[bytes, frozenset[bytes]]) -> bytes | None:
        """The topmost of the folders on the way that isn't there."""
        for above, place in _from_the_top(folder):
            if place in self._made:
                return None
            if place in self._known:
                continue
            if above not in there:
                there[above] = self._folders_in(above)
            if place in there[above]:
                self._known.add(place)
                continue
            if self._listing.entries(place, recurse=False) is None:
                return place
            # Another job may have made it since the look.
            there[above] = self._folders_in(above)
            if place not in there[above]:
                raise differing_error([Different(place, None, None)])
        return None

    def _folders_in(self, folder: bytes) -> frozenset[bytes]:
        prefix = folder + b"/" if folder else b""
        return frozenset(prefix + name for name in self._listing.folders_in(folder))

    def names(self, folder: bytes) -> Sequence[FarName]:
        """As `FarSide.names`, but that what is no file and no folder is left out."""
        self._known.clear()
        self.refuse_links([folder])
        return self._listing.names(folder)

    def unlisted(self, folder: bytes, paths: Sequence[bytes]) -> frozenset[bytes]:
        """As `FarSide.unlisted`."""

        def is_there(path: bytes) -> bool:
            return self._listing.is_file(folder + b"/" + path)

        found = zip(paths, self._daemon.attend(paths, is_there), strict=True)
        return frozenset(path for path, there in found if there)


def _from_the_top(folder: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each folder on the way, with the one it lies in."""
    above = b""
    for name in filter(None, folder.split(b"/")):
        place = above + b"/" + name if above else name
        yield above, place
        above = place
