"""Which filesystem holds a folder, and whether other machines have it too."""

from __future__ import annotations

from pathlib import Path

_NETWORK_FILESYSTEMS = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "coda", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2"}
    | {"orangefs", "smb3", "smbfs"}
    | {f"fuse.{name}" for name in ("ceph", "davfs", "glusterfs", "goofys", "rclone", "s3fs", "sshfs")}
)


def filesystem_type(path: Path, mount_table: str) -> str:
    """Type of the filesystem that holds an existing `path`, from the text of /proc/self/mountinfo; empty if unknown."""
    found, found_length = "", -1
    target = path.resolve()
    for line in mount_table.splitlines():
        before, separator, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")[0]
        if not separator or len(fields) < 5:
            continue
        mount_point = Path(fields[4].encode("ascii", "backslashreplace").decode("unicode_escape"))
        # The last of several mounts on one point covers the earlier ones.
        if target.is_relative_to(mount_point) and len(mount_point.parts) >= found_length:
            found, found_length = kind, len(mount_point.parts)
    return found


def network_filesystem(folder: Path, mount_table: str | None = None) -> str | None:
    """Type of the network filesystem that holds an existing `folder`; None for a local one, or where nothing tells."""
    if mount_table is None:
        mounts = Path("/proc/self/mountinfo")
        mount_table = mounts.read_text(encoding="utf-8", errors="surrogateescape") if mounts.exists() else ""
    kind = filesystem_type(folder, mount_table)
    return kind if kind in _NETWORK_FILESYSTEMS else None
