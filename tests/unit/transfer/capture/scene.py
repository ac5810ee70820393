"""A scene in which a real tool fails for real, and what it said there, without the places and names of this machine."""

from __future__ import annotations

import getpass
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from services.sync_engine.transfer.tool_process import tool_environment

PATIENCE = 60.0
NOBODY = 65534


@dataclass(frozen=True)
class Said:
    """How the tool ended, and its standard error."""

    code: int
    words: str


Scene = Callable[[Path], Said]
"""Gets an empty folder. Its name is that of the capture, `_` for `-`."""


def name_of(scene: Scene) -> str:
    return getattr(scene, "__name__", "").replace("_", "-")


def run(
    *command: str | Path,
    meanwhile: Callable[[], None] | None = None,
    shell_limits: str = "",
    user: int | None = None,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    stdout: Path | None = None,
) -> Said:
    """`meanwhile` is called once the tool runs; `shell_limits` are commands of a shell that becomes the tool."""
    words = [str(part) for part in command]
    if shell_limits:
        words = ["sh", "-c", f'{shell_limits}; exec "$@"', "sh", *words]
    with open(stdout or "/dev/null", "wb") as out:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.PIPE,
            env={**tool_environment(), **(environment or {})},
            cwd=folder or "/",
            user=user,
        )
        try:
            if meanwhile is not None:
                meanwhile()
            _, said = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
            process.wait()
    return Said(process.returncode, said.decode(errors="replace"))


def until(seen: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not seen():
        assert time.monotonic() < end, "what the scene waits for never happened"
        time.sleep(0.01)


def processes_of(tool: str, word: str, count: int) -> list[int]:
    """The ids of the tool's processes whose command holds the word, oldest first, as soon as there are so many."""
    found: list[int] = []

    def look() -> bool:
        found[:] = sorted(pid for pid, command in _commands() if command.startswith(f"{tool} ") and word in command)
        return len(found) == count

    until(look)
    return found


def _commands() -> Iterator[tuple[int, str]]:
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                # It ended meanwhile.
                continue
            yield int(process.name), b" ".join(words).decode(errors="replace")


@contextmanager
def mounted_tmpfs(place: Path, options: str) -> Iterator[Path]:
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@contextmanager
def mounted_disk_of_windows(folder: Path) -> Iterator[Path]:
    """NTFS that takes names as Windows takes them."""
    place, image = folder / "nas", folder / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkntfs", "--fast", "--force", "--quiet", image], check=True, capture_output=True)
    subprocess.run(["mount", "-t", "ntfs-3g", "-o", "loop,windows_names", image, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def files(folder: Path, sizes: Sequence[int] = (300_000, 300_000, 300_000)) -> Path:
    """A folder with `f1`, `f2` and so on, of those sizes."""
    folder.mkdir(parents=True)
    for number, size in enumerate(sizes, 1):
        (folder / f"f{number}").write_bytes(bytes([number]) * size)
    return folder


_PLAIN = (
    (re.compile(rf"\b{re.escape(getpass.getuser())}@127"), "user@127"),
    (re.compile(r"(127\.0\.0\.1\]?:)\d+"), r"\g<1>2222"),
    (re.compile(r"(127\.0\.0\.1 port )\d+"), r"\g<1>2222"),
    (re.compile(r"SHA256:\S+"), "SHA256:fingerprint"),
    (re.compile(r" on \d+\.\d+\.\d+\.\d+:53\b"), " on 192.0.2.53:53"),
    (re.compile(r'"time":"[^"]*"'), '"time":"2026-11-20T13:58:20Z"'),
)


def made_plain(words: str, folder: Path) -> str:
    """Without what is of this machine and this hour alone."""
    words = words.replace(str(folder), "/folder")
    for pattern, plain in _PLAIN:
        words = pattern.sub(plain, words)
    return words
