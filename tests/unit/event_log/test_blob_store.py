from __future__ import annotations

import asyncio
import hashlib
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from libs.event_log.blob_store import BlobChangedError, BlobMissingError, BlobStore
from libs.event_log.store import LogUnavailableError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "blobs"


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_what_is_put_can_be_read(folder: Path) -> None:
    blobs = BlobStore(folder)
    for content in (b"", b"evidence", bytes(3_000_000)):
        digest = await blobs.put(content)
        assert digest == hashlib.sha256(content).hexdigest()
        assert await blobs.read(digest) == content


def test_a_blob_lies_by_its_digest_and_is_read_only(folder: Path) -> None:
    digest = BlobStore(folder).put_sync(b"evidence")
    (file,) = files(folder)
    assert file == folder / digest[:2] / digest
    assert stat.S_IMODE(file.stat().st_mode) == 0o400
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_putting_the_same_again_changes_nothing(folder: Path) -> None:
    blobs = BlobStore(folder)
    blobs.put_sync(b"evidence")
    (before,) = files(folder)
    inode = before.stat().st_ino
    blobs.put_sync(b"evidence")
    (after,) = files(folder)
    assert after.stat().st_ino == inode


def test_the_same_from_many_threads(folder: Path) -> None:
    blobs = BlobStore(folder)
    with ThreadPoolExecutor(8) as threads:
        digests = set(threads.map(blobs.put_sync, [b"evidence"] * 100))
    assert len(digests) == len(files(folder)) == 1


async def test_a_missing_blob_is_named(folder: Path) -> None:
    digest = hashlib.sha256(b"never put").hexdigest()
    with pytest.raises(BlobMissingError) as caught:
        await BlobStore(folder).read(digest)
    assert caught.value.digest == digest


async def test_a_changed_blob_is_named(folder: Path) -> None:
    blobs = BlobStore(folder)
    digest = await blobs.put(b"evidence")
    changed = folder / digest[:2] / digest
    changed.chmod(0o600)
    await asyncio.to_thread(changed.write_bytes, b"evidencE")
    with pytest.raises(BlobChangedError) as caught:
        await blobs.read(digest)
    assert (caught.value.digest, caught.value.actual) == (digest, hashlib.sha256(b"evidencE").hexdigest())


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "AB" * 32, "ab" * 31, "ab" * 32 + "\n"])
async def test_what_is_no_digest(folder: Path, digest: str) -> None:
    with pytest.raises(ValueError, match="no SHA-256"):
        await BlobStore(folder).read(digest)


def test_leftovers_of_a_killed_process_are_swept(folder: Path) -> None:
    blobs = BlobStore(folder)
    digest = blobs.put_sync(b"evidence")
    (folder / digest[:2] / ".new-abc").write_bytes(b"evid")
    assert blobs.sweep() == 1
    assert blobs.read_sync(digest) == b"evidence"
    assert blobs.sweep() == 0


def test_a_disk_that_refuses_leaves_nothing(folder: Path) -> None:
    blobs = BlobStore(folder)
    digest = hashlib.sha256(b"evidence").hexdigest()
    folder.mkdir()
    (folder / digest[:2]).write_bytes(b"a file where a folder belongs")
    with pytest.raises(LogUnavailableError, match=digest[:2]):
        blobs.put_sync(b"evidence")
    assert len(files(folder)) == 1
