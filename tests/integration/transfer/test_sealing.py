"""Putting the changing files at the destination: atomically, compared, and the manifest checks there."""

from __future__ import annotations

import os
import subprocess

import pytest

from libs.run_tree.manifest import MANIFEST_PATH, ManifestEntry, format_manifest
from services.sync_engine.transfer.sealed_file import SealedFile
from services.sync_engine.transfer.transport import FailureKind, TransferError
from tests.integration.transfer.carrying import HOSTILE_NAMES, TARGET, Carrying, tree, write

MTIME = 1_600_000_000_000_000_000


def test_files_are_made_and_replaced_with_their_times(carrying: Carrying) -> None:
    old = SealedFile(b"p/Runs/Run_x/.exlab-wizard/creation.json", b'{"sync_status":"pending"}', MTIME)
    new = SealedFile(old.path, b'{"sync_status":"synced"}', MTIME + 1)
    above = SealedFile(b".exlab-wizard/equipment.json", b"{}", MTIME)
    carrying.transport.seal([old], job_id="job", control=carrying.control)
    carrying.transport.seal([new, above], job_id="job", control=carrying.control)
    assert {path: content for path, content in tree(carrying.destination).items() if content is not None} == {
        new.path: new.content,
        above.path: above.content,
    }
    assert os.stat(os.path.join(os.fsencode(carrying.destination), new.path)).st_mtime_ns == MTIME + 1


def test_sha256sum_passes_at_the_destination(carrying: Carrying) -> None:
    for name in HOSTILE_NAMES:
        write(carrying.source, name, name)
    copied = carrying.copy()
    manifest = format_manifest(ManifestEntry(file.path, file.sha256) for file in copied)
    carrying.transport.seal(
        [SealedFile(os.fsencode(TARGET) + b"/" + MANIFEST_PATH, manifest, MTIME)],
        job_id="job",
        control=carrying.control,
    )
    done = subprocess.run(
        ["sha256sum", "-c", "--strict", "--quiet", os.fsdecode(MANIFEST_PATH)],
        cwd=carrying.run,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert carrying.verify(copied).unexpected == ()


def test_a_folder_in_its_place_is_an_error_and_no_temporary_stays(carrying: Carrying) -> None:
    (carrying.destination / "p" / "creation.json").mkdir(parents=True)
    with pytest.raises(TransferError, match="sealing p/creation"):
        carrying.transport.seal([SealedFile(b"p/creation.json", b"{}", MTIME)], job_id="job", control=carrying.control)
    assert os.listdir(carrying.destination / "p") == ["creation.json"]


def test_a_symlink_in_its_place_is_replaced_not_followed(carrying: Carrying) -> None:
    write(carrying.destination, b"elsewhere.json", b"theirs")
    (carrying.destination / "creation.json").symlink_to("elsewhere.json")
    carrying.transport.seal([SealedFile(b"creation.json", b"{}", MTIME)], job_id="job", control=carrying.control)
    assert tree(carrying.destination) == {b"creation.json": b"{}", b"elsewhere.json": b"theirs"}


def test_a_folder_that_is_a_symlink_is_not_written_through(carrying: Carrying) -> None:
    (carrying.destination / "elsewhere").mkdir()
    (carrying.destination / "p").symlink_to("elsewhere")
    with pytest.raises(TransferError) as refusal:
        carrying.transport.seal([SealedFile(b"p/creation.json", b"{}", MTIME)], job_id="job", control=carrying.control)
    assert refusal.value.kind is FailureKind.DESTINATION_FILE_DIFFERS


@pytest.mark.parametrize("path", [b"../x", b"/x", b"a/../../x", b"a/./x"])
def test_no_path_climbs_out(carrying: Carrying, path: bytes) -> None:
    with pytest.raises(ValueError, match="climbs"):
        carrying.transport.seal([SealedFile(path, b"", MTIME)], job_id="job", control=carrying.control)
