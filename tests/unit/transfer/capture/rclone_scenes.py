"""rclone, called as the engine calls it, on one machine and against real servers."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from services.sync_engine.transfer.tool_process import find_tool, tool_environment
from tests.integration.transfer.far_servers import (
    free_port,
    make_key,
    rclone_serving,
    running_samba,
    running_sshd,
)
from tests.integration.transfer.http_gate import gate_before
from tests.unit.transfer.capture.scene import NOBODY, Said, Scene, files, mounted_tmpfs, processes_of, run, until

RCLONE = find_tool("rclone")
_OPTIONS = ("--use-json-log", "--ask-password=false", "--log-level", "ERROR", "--retries", "1")
_LOW = ("--low-level-retries", "3", "--contimeout", "10s", "--timeout", "5m")
_SLOWLY = "--bwlimit=100k"


def rclone_usage(folder: Path) -> Said:
    return _rclone(folder, "lsf", "--no-such-flag", f"{folder}")


def rclone_no_such_remote(folder: Path) -> Said:
    return _rclone(folder, "lsf", "far:")


def rclone_encrypted_configuration(folder: Path) -> Said:
    (folder / "rclone.conf").write_text("# Encrypted rclone configuration File\n\nRCLONE_ENCRYPT_V0:\nAAAA\n")
    return _rclone(folder, "lsf", "far:")


def rclone_wrong_configuration_password(folder: Path) -> Said:
    config = _configure(folder, type="local")
    subprocess.run(
        [RCLONE, "--config", config, "config", "encryption", "set", "--password-command", "echo the right one"],
        env=tool_environment(),
        check=True,
        capture_output=True,
    )
    return _rclone(folder, "lsf", "far:", "--password-command", "echo another")


def rclone_refused(folder: Path) -> Said:
    _configure(folder, type="sftp", host="127.0.0.1", port=free_port(), user="user", **_password())
    return _rclone(folder, "lsf", "far:")


def rclone_no_such_host(folder: Path) -> Said:
    _configure(folder, type="webdav", url="http://no-such-host.invalid/", vendor="other")
    return _rclone(folder, "lsf", "far:")


def rclone_wrong_key(folder: Path) -> Said:
    make_key(folder / "other")
    return _over_sftp(folder, key_file=folder / "other")


def rclone_wrong_password(folder: Path) -> Said:
    return _over_sftp(folder, key_file="", **_password())


def rclone_changed_host_key(folder: Path) -> Said:
    key = make_key(folder / "other")
    (folder / "known").write_text(f"127.0.0.1 {key}")
    return _over_sftp(folder, known_hosts_file=folder / "known")


def rclone_webdav_wrong_password(folder: Path) -> Said:
    with rclone_serving("webdav", files(folder / "nas"), folder, "--user", "lab", "--pass", "right") as port:
        _configure(folder, type="webdav", url=f"http://127.0.0.1:{port}", vendor="other", user="lab")
        return _rclone(folder, "lsf", "far:")


def rclone_s3_wrong_key(folder: Path) -> Said:
    return _over_s3(folder, "another", "far:lab")


def rclone_s3_no_bucket(folder: Path) -> Said:
    return _over_s3(folder, "something", "far:no-such-bucket")


def rclone_s3_bucket_name(folder: Path) -> Said:
    return _over_s3(folder, "something", "far:no", act=lambda: _copy(folder, "far:no"))


def rclone_s3_full(folder: Path) -> Said:
    """As MinIO says it."""
    words = (
        b"<Error><Code>XMinioStorageFull</Code><Message>Storage backend has reached its minimum free drive threshold."
    )
    return _refused_by_s3(folder, 507, words + b" Please delete a few objects to proceed.</Message></Error>")


def rclone_s3_quota(folder: Path) -> Said:
    """As Ceph says it."""
    return _refused_by_s3(folder, 403, b"<Error><Code>QuotaExceeded</Code></Error>")


def rclone_webdav_full(folder: Path) -> Said:
    """As Nextcloud says it."""
    words = (
        b'<?xml version="1.0" encoding="utf-8"?><d:error xmlns:d="DAV:" xmlns:s="http://sabredav.org/ns">'
        b"<s:exception>Sabre\\DAV\\Exception\\InsufficientStorage</s:exception><s:message></s:message></d:error>"
    )
    (folder / "nas").mkdir()
    with rclone_serving("webdav", folder / "nas", folder) as port, gate_before(port, "^PUT", 507, words) as gate:
        _configure(folder, type="webdav", url=f"http://127.0.0.1:{gate.port}", vendor="owncloud")
        return _copy(folder, "far:")


def rclone_smb_no_share(folder: Path) -> Said:
    with running_samba(files(folder / "nas"), folder / "samba") as port:
        _configure(folder, type="smb", host="127.0.0.1", port=port, user="guest")
        return _rclone(folder, "lsf", "far:no-such-share")


def rclone_directory_missing(folder: Path) -> Said:
    return _rclone(folder, "lsjson", "--recursive", folder / "nas")


def rclone_object_missing(folder: Path) -> Said:
    return _rclone(folder, "deletefile", files(folder / "nas") / "f7")


def rclone_full(folder: Path) -> Said:
    with mounted_tmpfs(folder / "nas", "size=400k") as nas:
        return _copy(folder, nas)


def rclone_smb_full(folder: Path) -> Said:
    with (
        mounted_tmpfs(folder / "nas", "size=400k") as nas,
        running_samba(nas, folder / "samba") as port,
    ):
        _configure(folder, type="smb", host="127.0.0.1", port=port, user="guest")
        return _copy(folder, "far:lab")


def rclone_sftp_full(folder: Path) -> Said:
    with mounted_tmpfs(folder / "nas", "size=400k") as nas:
        return _over_sftp(folder, lambda: _copy(folder, f"far:{nas}"))


def rclone_quota(folder: Path) -> Said:
    return _copy_with_error(folder, "EDQUOT")


def rclone_disk_error(folder: Path) -> Said:
    return _copy_with_error(folder, "EIO")


def rclone_read_only(folder: Path) -> Said:
    with mounted_tmpfs(folder / "nas", "ro") as nas:
        return _copy(folder, nas)


def rclone_permission(folder: Path) -> Said:
    (folder / "nas").mkdir(mode=0o755)
    return _copy(folder, folder / "nas", user=NOBODY)


def rclone_a_file_in_the_way(folder: Path) -> Said:
    (folder / "nas").write_text("no folder")
    return _copy(folder, folder / "nas")


def rclone_differences(folder: Path) -> Said:
    return _rclone(folder, "check", files(folder / "run"), files(folder / "nas", [300_000, 200_000, 1]))


def rclone_arrived_as_something_else(folder: Path) -> Said:
    def spoil() -> None:
        (partial,) = (folder / "nas").glob("f1.*")
        with open(partial, "r+b") as file:
            file.write(b"another")

    # A far host reads what it holds; this machine's own files are hashed while they are written.
    return _over_sftp(folder, lambda: _slow_copy(folder, spoil, f"far:{folder}/nas"))


def rclone_source_grows(folder: Path) -> Said:
    def grow() -> None:
        with open(folder / "run" / "f1", "ab") as file:
            file.write(b"more")

    return _slow_copy(folder, grow)


def rclone_server_dies(folder: Path) -> Said:
    nas = folder / "nas"
    nas.mkdir()
    with rclone_serving("webdav", nas, folder) as port:
        _configure(folder, type="webdav", url=f"http://127.0.0.1:{port}", vendor="other")

        def kill() -> None:
            until(lambda: any(nas.iterdir()))
            os.kill(processes_of(RCLONE, f"serve webdav {nas}", count=1)[0], signal.SIGKILL)

        return _rclone(folder, "copy", _SLOWLY, files(folder / "run"), "far:", meanwhile=kill)


def rclone_killed(folder: Path) -> Said:
    return _slow_copy(folder, lambda: os.kill(processes_of(RCLONE, str(folder), count=1)[0], signal.SIGKILL))


def rclone_crashed(folder: Path) -> Said:
    return run(RCLONE, "version", shell_limits="ulimit -v 200000")


def rclone_delete_limit(folder: Path) -> Said:
    files(folder / "nas", [1, 1, 1, 1, 1, 1])
    return _rclone(folder, "sync", "--max-delete=1", files(folder / "run"), folder / "nas")


def rclone_transfer_limit(folder: Path) -> Said:
    return _copy(folder, folder / "nas", "--max-transfer=400k", "--cutoff-mode=hard")


def rclone_duration_limit(folder: Path) -> Said:
    return _copy(folder, folder / "nas", "--max-duration=1s", "--cutoff-mode=hard", _SLOWLY)


def rclone_nothing_transferred(folder: Path) -> Said:
    run_folder = files(folder / "run")
    return _rclone(folder, "copy", "--error-on-no-transfer", run_folder, run_folder)


def _rclone(
    folder: Path,
    *arguments: str | Path,
    meanwhile: Callable[[], None] | None = None,
    user: int | None = None,
    strace: tuple[str, ...] = (),
) -> Said:
    config = folder / "rclone.conf"
    if not config.exists():
        config.touch()
    config.chmod(0o666)
    traced = ("strace", "-f", "-o", "/dev/null", *strace) if strace else ()
    command = (*traced, RCLONE, "--config", config, *_OPTIONS, *_LOW, *arguments)
    return run(*command, meanwhile=meanwhile, user=user, environment={"HOME": str(folder)})


def _configure(folder: Path, **settings: object) -> Path:
    config = folder / "rclone.conf"
    config.write_text("[far]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items()))
    return config


def _password() -> dict[str, str]:
    done = subprocess.run([RCLONE, "obscure", "wrong"], stdout=subprocess.PIPE, check=True, text=True)
    return {"pass": done.stdout.strip()}


def _copy(folder: Path, nas: Path | str, *options: str, user: int | None = None, strace: tuple[str, ...] = ()) -> Said:
    return _rclone(folder, "copy", *options, files(folder / "run"), nas, user=user, strace=strace)


def _copy_with_error(folder: Path, error: str) -> Said:
    files(folder / "nas", [1])
    strace = ("-P", str(folder / "nas" / "f1"), "-e", f"inject=write,pwrite64:error={error}")
    return _copy(folder, folder / "nas", "--inplace", strace=strace)


def _slow_copy(folder: Path, meddle: Callable[[], object], nas: str = "") -> Said:
    def meanwhile() -> None:
        until(lambda: any(place.stat().st_size for place in (folder / "nas").glob("f1.*")))
        meddle()

    (folder / "nas").mkdir()
    # Its first bytes are written long before the last are read.
    options = (_SLOWLY, "--buffer-size=0", "--local-no-preallocate", "--transfers=1", "--order-by=name")
    return _rclone(folder, "copy", *options, files(folder / "run"), nas or folder / "nas", meanwhile=meanwhile)


def _over_sftp(folder: Path, act: Callable[[], Said] | None = None, **changed: object) -> Said:
    """`act` None: a listing."""
    with running_sshd(folder / "sshd") as sshd:
        access = sshd.access
        user, _, host = access.target.partition("@")
        settings: dict[str, object] = {
            "type": "sftp",
            "host": host,
            "port": access.port,
            "user": user,
            "key_file": access.key_path,
            "known_hosts_file": access.known_hosts,
            "shell_type": "unix",
        }
        if isinstance(changed.get("known_hosts_file"), Path):
            known = Path(str(changed["known_hosts_file"]))
            known.write_text(known.read_text().replace("127.0.0.1 ", f"[127.0.0.1]:{access.port} "))
        _configure(folder, **{**settings, **changed})
        return act() if act is not None else _rclone(folder, "lsf", "far:/")


def _over_s3(folder: Path, secret: str, place: str, act: Callable[[], Said] | None = None) -> Said:
    """`act` None: a listing."""
    (folder / "nas" / "lab").mkdir(parents=True)
    with rclone_serving("s3", folder / "nas", folder, "--auth-key", "someone,something") as port:
        endpoint = f"http://127.0.0.1:{port}"
        _configure(
            folder,
            type="s3",
            provider="Other",
            endpoint=endpoint,
            access_key_id="someone",
            secret_access_key=secret,
        )
        return act() if act is not None else _rclone(folder, "lsf", place)


def _refused_by_s3(folder: Path, status: int, words: bytes) -> Said:
    (folder / "nas" / "lab").mkdir(parents=True)
    with (
        rclone_serving("s3", folder / "nas", folder, "--auth-key", "someone,something") as port,
        gate_before(port, "^PUT", status, words) as gate,
    ):
        _configure(
            folder,
            type="s3",
            provider="Other",
            endpoint=f"http://127.0.0.1:{gate.port}",
            access_key_id="someone",
            secret_access_key="something",
        )
        return _copy(folder, "far:lab")


SCENES: tuple[Scene, ...] = (
    *(rclone_usage, rclone_no_such_remote, rclone_encrypted_configuration, rclone_wrong_configuration_password),
    *(rclone_refused, rclone_no_such_host, rclone_wrong_key, rclone_wrong_password, rclone_changed_host_key),
    *(rclone_webdav_wrong_password, rclone_s3_wrong_key, rclone_s3_no_bucket, rclone_smb_no_share),
    *(rclone_s3_bucket_name, rclone_s3_full, rclone_s3_quota, rclone_webdav_full),
    *(rclone_directory_missing, rclone_object_missing, rclone_full, rclone_smb_full, rclone_sftp_full),
    *(rclone_quota, rclone_disk_error),
    *(
        rclone_read_only,
        rclone_permission,
        rclone_a_file_in_the_way,
        rclone_differences,
        rclone_arrived_as_something_else,
    ),
    *(
        rclone_source_grows,
        rclone_server_dies,
        rclone_killed,
        rclone_crashed,
        rclone_delete_limit,
        rclone_transfer_limit,
    ),
    *(rclone_duration_limit, rclone_nothing_transferred),
)
