"""`make demo`, as the README gives it: by itself, and on a copy of the user's own folder."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest


async def _demo(*arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli.demo", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        stdin=asyncio.subprocess.DEVNULL,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


@pytest.mark.slow
async def test_the_demo_does_the_main_job(tmp_path: Path) -> None:
    status, output = await _demo("--folder", str(tmp_path / "demo"))
    assert status == 0, output
    assert "Done: every step above was checked." in output


@pytest.mark.slow
async def test_the_demo_works_on_a_copy_of_a_folder_of_yours(tmp_path: Path) -> None:
    own = tmp_path / "my scan"
    (own / "deep").mkdir(parents=True)
    (own / "deep" / "image<1>.tif").write_bytes(os.urandom(300_000))
    (own / "notes:final.txt").write_text("a name that the gate doesn't like")
    before = sorted((p, p.stat().st_mtime_ns) for p in own.rglob("*"))
    status, output = await _demo("--folder", str(tmp_path / "demo"), "--run", str(own))
    assert status == 0, output
    assert "illegal_filesystem_character" in output
    assert sorted((p, p.stat().st_mtime_ns) for p in own.rglob("*")) == before


async def test_a_folder_that_is_none_is_said_so(tmp_path: Path) -> None:
    status, output = await _demo("--folder", str(tmp_path / "demo"), "--run", str(tmp_path / "nope"))
    assert status == 2
    assert "is no folder" in output
