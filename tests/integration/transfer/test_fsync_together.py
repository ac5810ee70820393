"""Files that are made durable together: each answers for itself, also where the kernel takes them one by one."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.sync_engine.transfer import kernel_queue
from services.sync_engine.transfer.fsync_together import fsync_together

COUNT = 150


@pytest.fixture(params=["together", "no such call", "no room in the kernel"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    how: str = request.param
    monkeypatch.setattr(kernel_queue, "_idle", type(kernel_queue._idle)())
    if how == "no such call":
        monkeypatch.setattr(kernel_queue, "_CALLS", None)
    if how == "no room in the kernel":
        monkeypatch.setattr(kernel_queue, "_call", lambda *arguments: -1)
    return how


@pytest.fixture
def files(tmp_path: Path) -> Iterator[list[int]]:
    descriptors = [os.open(tmp_path / str(number), os.O_WRONLY | os.O_CREAT, 0o600) for number in range(COUNT)]
    for descriptor in descriptors:
        os.write(descriptor, b"content")
    yield descriptors
    for descriptor in descriptors:
        os.close(descriptor)


def numbers(said: Sequence[OSError | None]) -> list[int | None]:
    return [None if error is None else error.errno for error in said]


def test_all_are_durable(files: list[int], way: str) -> None:
    assert numbers(fsync_together(files)) == [None] * COUNT
    assert len(kernel_queue._idle) == (1 if way == "together" else 0), "the kernel's own way, where there is one"
    assert fsync_together([]) == []
    assert fsync_together(files[:1]) == [None]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("place", [0, 1, 63, 64, COUNT])
def test_what_can_not_be_synced_is_told_and_the_others_are(files: list[int], place: int) -> None:
    reading, writing = os.pipe()
    nothing = os.open("/dev/null", os.O_RDONLY)
    os.close(nothing)
    try:
        said = fsync_together([*files[:place], writing, nothing, *files[place:]])
    finally:
        os.close(reading)
        os.close(writing)
    assert numbers(said) == [None] * place + [errno.EINVAL, errno.EBADF] + [None] * (COUNT - place)


@pytest.mark.usefixtures("way")
def test_many_threads_at_once(files: list[int]) -> None:
    with ThreadPoolExecutor(8) as threads:
        for said in threads.map(fsync_together, [files] * 40):
            assert numbers(said) == [None] * COUNT
