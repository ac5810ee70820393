"""rsync on one machine, and with its own daemon."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from services.sync_engine.transfer.tool_process import find_tool
from tests.integration.transfer.far_servers import free_port, server
from tests.unit.transfer.capture.scene import (
    NOBODY,
    Said,
    Scene,
    files,
    mounted_disk_of_windows,
    mounted_tmpfs,
    processes_of,
    run,
    until,
)

RSYNC = find_tool("rsync")
_SLOWLY = "--bwlimit=100"


def rsync_usage(folder: Path) -> Said:
    return run(RSYNC, "--no-such-option", f"{files(folder / 'run')}/", folder / "nas")


def rsync_selection(folder: Path) -> Said:
    run_folder = files(folder / "run")
    return run(RSYNC, "-r", f"{run_folder}/", f"{run_folder}/f1/")


def rsync_unsupported(folder: Path) -> Said:
    with _daemon(folder) as address:
        return run(RSYNC, "-r", "--delete", f"{files(folder / 'run')}/", f"{address}/lab/")


def rsync_no_such_module(folder: Path) -> Said:
    with _daemon(folder) as address:
        return run(RSYNC, "-r", f"{files(folder / 'run')}/", f"{address}/other/")


def rsync_no_daemon(folder: Path) -> Said:
    return run(RSYNC, "-r", f"{files(folder / 'run')}/", f"rsync://127.0.0.1:{free_port()}/lab/")


def rsync_daemon_says_nothing(folder: Path) -> Said:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            # The kernel takes no more than it has room for, and leaves whoever comes then without an answer.
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        address = f"rsync://127.0.0.1:{listener.getsockname()[1]}/lab/"
        try:
            return run(RSYNC, "-r", "--contimeout=1", f"{files(folder / 'run')}/", address)
        finally:
            for one in waiting:
                one.close()


def rsync_full_here(folder: Path) -> Said:
    with mounted_tmpfs(folder / "nas", "size=400k") as nas:
        return _copy(folder, nas)


def rsync_quota(folder: Path) -> Said:
    return _copy_with_error(folder, "write:error=EDQUOT")


def rsync_disk_error(folder: Path) -> Said:
    return _copy_with_error(folder, "write:error=EIO")


def rsync_no_such_folder(folder: Path) -> Said:
    return _copy(folder, folder / "nas" / "not" / "there")


def rsync_file_too_large(folder: Path) -> Said:
    return _copy(folder, folder / "nas", shell_limits="trap '' XFSZ; ulimit -f 100")


def rsync_messages_lost(folder: Path) -> Said:
    run_folder = files(folder / "run")
    return run(RSYNC, "-rv", "--outbuf=N", f"{run_folder}/", folder / "nas", stdout=Path("/dev/full"))


def rsync_no_remote_shell(folder: Path) -> Said:
    return run(RSYNC, "-r", "-e", folder / "no-ssh", f"{files(folder / 'run')}/", f"far:{folder}/nas/")


def rsync_no_pipe(folder: Path) -> Said:
    return _copy(folder, folder / "nas", strace=("-e", "inject=pipe,pipe2,socketpair:error=EMFILE"))


def rsync_sibling_crashed(folder: Path) -> Said:
    # Only a crash that leaves a core counts as one.
    return _copy_whose_receiver_ends_by(folder, signal.SIGSEGV, shell_limits="ulimit -c unlimited")


def rsync_sibling_killed(folder: Path) -> Said:
    return _copy_whose_receiver_ends_by(folder, signal.SIGKILL)


def rsync_receiver_killed(folder: Path) -> Said:
    return _slow_copy(folder, lambda: os.kill(_processes(folder)[2], signal.SIGKILL))


def rsync_sigusr1(folder: Path) -> Said:
    return _slow_copy(folder, lambda: os.kill(_processes(folder)[0], signal.SIGUSR1))


def rsync_sigterm(folder: Path) -> Said:
    return _slow_copy(folder, lambda: os.kill(_processes(folder)[0], signal.SIGTERM))


def rsync_killed(folder: Path) -> Said:
    return _slow_copy(folder, lambda: os.kill(_processes(folder)[0], signal.SIGKILL))


def rsync_waitpid(folder: Path) -> Said:
    return _copy(folder, folder / "nas", strace=("-e", "inject=wait4:error=ECHILD"))


def rsync_out_of_memory(folder: Path) -> Said:
    run_folder = files(folder / "run", [20_000_000])
    files(folder / "nas", [20_000_000])
    # The table of so many blocks is larger than it may take at once.
    options = ("-r", "-I", "--no-whole-file", "--block-size=128", "--max-alloc=1M")
    return run(RSYNC, *options, f"{run_folder}/", f"{folder}/nas/")


def rsync_source_missing(folder: Path) -> Said:
    return run(RSYNC, "-r", f"{folder}/run/", f"{folder}/nas/")


def rsync_file_missing(folder: Path) -> Said:
    run_folder = files(folder / "run")
    (folder / "names").write_bytes(b"f1\0f7\0")
    return run(RSYNC, "-t", "--from0", f"--files-from={folder}/names", f"{run_folder}/", f"{folder}/nas/")


def rsync_read_only(folder: Path) -> Said:
    with mounted_tmpfs(folder / "nas", "ro") as nas:
        return _copy(folder, nas)


def rsync_permission(folder: Path) -> Said:
    run_folder = files(folder / "run")
    (folder / "nas").mkdir(mode=0o755)
    return run(RSYNC, "-rt", f"{run_folder}/", f"{folder}/nas/", user=NOBODY)


def rsync_times_not_settable(folder: Path) -> Said:
    run_folder = files(folder / "run")
    os.utime(run_folder, (1, 1))
    (folder / "nas").mkdir()
    (folder / "nas").chmod(0o777)
    return run(RSYNC, "-rt", f"{run_folder}/", f"{folder}/nas/", user=NOBODY)


def rsync_unreadable_source(folder: Path) -> Said:
    run_folder = files(folder / "run")
    (run_folder / "f2").chmod(0)
    (folder / "nas").mkdir()
    (folder / "nas").chmod(0o777)
    return run(RSYNC, "-r", f"{run_folder}/", f"{folder}/nas/", user=NOBODY)


def rsync_name_too_long(folder: Path) -> Said:
    run_folder = files(folder / "run")
    for place in run_folder, files(folder / "nas"):
        (place / ("n" * 255)).write_text(str(place).removesuffix("nas"))
    # What it replaces gets a name that is longer still.
    return run(RSYNC, "-r", "--backup", "--suffix=.superseded", f"{run_folder}/", f"{folder}/nas/")


def rsync_name_refused(folder: Path) -> Said:
    run_folder = files(folder / "run", [])
    for name in "aux.txt", "a:b", "trailing.":
        (run_folder / name).write_text("x")
    with mounted_disk_of_windows(folder) as nas:
        return run(RSYNC, "-rt", f"{run_folder}/", f"{nas}/")


def rsync_folder_name_refused(folder: Path) -> Said:
    run_folder = files(folder / "run", [])
    (run_folder / "aux").mkdir()
    (run_folder / "nul").symlink_to("nowhere")
    with mounted_disk_of_windows(folder) as nas:
        return run(RSYNC, "-rtl", f"{run_folder}/", f"{nas}/")


def rsync_source_vanished(folder: Path) -> Said:
    return _slow_copy(folder, lambda: (folder / "run" / "f3").unlink(), options=("--no-inc-recursive",))


def rsync_delete_limit(folder: Path) -> Said:
    files(folder / "nas", [1, 1, 1, 1, 1])
    return _copy(folder, folder / "nas", options=("--delete", "--max-delete=1"))


def rsync_stop_after(folder: Path) -> Said:
    return _copy(folder, folder / "nas", options=("--stop-after=1", "--bwlimit=1"))


def _copy(
    folder: Path,
    nas: Path,
    *,
    options: tuple[str, ...] = (),
    strace: tuple[str, ...] = (),
    shell_limits: str = "",
    meanwhile: Callable[[], None] | None = None,
) -> Said:
    traced = ("strace", "-f", "-o", "/dev/null", *strace) if strace else ()
    command = (*traced, RSYNC, "-r", *options, f"{files(folder / 'run')}/", f"{nas}/")
    return run(*command, shell_limits=shell_limits, meanwhile=meanwhile, folder=folder)


def _copy_with_error(folder: Path, error: str) -> Said:
    files(folder / "nas", [1])
    strace = ("-P", str(folder / "nas" / "f1"), "-e", f"inject={error}")
    return _copy(folder, folder / "nas", options=("--inplace",), strace=strace)


def _slow_copy(
    folder: Path, meddle: Callable[[], object], *, options: tuple[str, ...] = (), shell_limits: str = ""
) -> Said:
    def meanwhile() -> None:
        # Its first bytes are there: the list is made, and all three processes are at work.
        until(lambda: any(p.stat().st_size for p in (folder / "nas").glob(".f1.*")))
        meddle()

    (folder / "nas").mkdir()
    return _copy(folder, folder / "nas", options=(_SLOWLY, *options), shell_limits=shell_limits, meanwhile=meanwhile)


def _copy_whose_receiver_ends_by(folder: Path, number: signal.Signals, shell_limits: str = "") -> Said:
    """Right at the end, when the generator told it that it may go; earlier it is the lost connection that counts."""
    trace = folder / "trace"

    def meanwhile() -> None:
        until(lambda: trace.exists() and b"SIGUSR2" in trace.read_bytes())
        os.kill(_processes(folder)[2], number)

    traced = ("strace", "-f", "-o", str(trace), "-e", "trace=kill", "-e", "inject=kill:retval=0")
    command = (*traced, RSYNC, "-r", f"{files(folder / 'run')}/", f"{folder}/nas/")
    return run(*command, shell_limits=shell_limits, meanwhile=meanwhile, folder=folder)


def _processes(folder: Path) -> list[int]:
    """The sender, the generator, the receiver: each started the next."""
    return processes_of(RSYNC, str(folder), count=3)


@contextmanager
def _daemon(folder: Path) -> Iterator[str]:
    port = free_port()
    (folder / "nas").mkdir()
    (folder / "daemon.conf").write_text(
        f"port = {port}\naddress = 127.0.0.1\nuse chroot = no\nlog file = {folder}/daemon.log\n"
        f"[lab]\npath = {folder}/nas\nread only = no\nuid = {os.geteuid()}\ngid = {os.getegid()}\n"
        "refuse options = delete\n"
    )
    with server([RSYNC, "--daemon", "--no-detach", f"--config={folder}/daemon.conf"], port, folder):
        yield f"rsync://127.0.0.1:{port}"


SCENES: tuple[Scene, ...] = (
    *(rsync_usage, rsync_selection, rsync_unsupported, rsync_no_such_module, rsync_no_daemon),
    *(rsync_daemon_says_nothing, rsync_full_here, rsync_quota, rsync_disk_error, rsync_no_such_folder),
    *(rsync_file_too_large, rsync_messages_lost, rsync_no_remote_shell, rsync_no_pipe, rsync_sibling_crashed),
    *(
        rsync_sibling_killed,
        rsync_receiver_killed,
        rsync_sigusr1,
        rsync_sigterm,
        rsync_killed,
        rsync_waitpid,
        rsync_out_of_memory,
    ),
    *(rsync_source_missing, rsync_file_missing, rsync_read_only, rsync_permission, rsync_times_not_settable),
    *(rsync_unreadable_source, rsync_name_too_long, rsync_name_refused, rsync_folder_name_refused),
    *(rsync_source_vanished, rsync_delete_limit, rsync_stop_after),
)
