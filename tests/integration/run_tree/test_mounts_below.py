"""Whatever is mounted below a folder is named: file systems, folders and files, whatever their names."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from libs.run_tree.beneath import folder_beneath
from libs.run_tree.mounts_below import mounts_below


@contextmanager
def mounted(what: Path, at: Path) -> Iterator[None]:
    """`what` is seen at `at`, too."""
    subprocess.run(["mount", "--bind", str(what), str(at)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


def test_folders_and_files_that_lie_elsewhere(tmp_path: Path) -> None:
    names = ["plain", "two words", "new\nline", "back\\slash", "ä"]
    for place in ("run", "run/sub", "other", "run beside"):
        for name in names:
            (tmp_path / place / name).mkdir(parents=True)
            (tmp_path / place / f"{name}.tif").touch()
    with ExitStack() as mounts, folder_beneath(tmp_path / "run") as run:
        assert mounts_below(run) == []
        mounts.enter_context(mounted(tmp_path / "other", tmp_path / "run beside"))
        assert mounts_below(run) == []
        expected = []
        for below in ("", "sub/"):
            for name in names:
                for kind in (name, f"{name}.tif"):
                    mounts.enter_context(mounted(tmp_path / "other" / kind, tmp_path / "run" / below / kind))
                    expected.append(os.fsencode(below + kind))
        assert mounts_below(run) == expected
        with folder_beneath(tmp_path / "run" / "sub") as sub:
            assert mounts_below(sub) == [path.removeprefix(b"sub/") for path in expected if path.startswith(b"sub/")]


def test_a_folder_that_is_a_mount_itself_holds_none(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "nas").mkdir()
    with mounted(tmp_path / "nas", tmp_path / "run"), folder_beneath(tmp_path / "run") as run:
        assert mounts_below(run) == []
