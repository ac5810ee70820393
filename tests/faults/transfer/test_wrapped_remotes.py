"""Remotes that wrap others: what they remember or hide is never taken for what the destination holds."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from socket import gethostname

import pytest

from services.sync_engine.transfer.bandwidth import UNLIMITED
from services.sync_engine.transfer.rclone_place import RclonePlace
from services.sync_engine.transfer.rclone_remote import RcloneRemote
from services.sync_engine.transfer.remote_transport import RemoteTransport
from services.sync_engine.transfer.tool_process import find_tool
from services.sync_engine.transfer.tools import RCLONE, Toolbox
from services.sync_engine.transfer.transport import FailureKind, TransferError
from tests.integration.transfer.carrying import Carrying, write
from tests.integration.transfer.far_servers import Sshd, running_sshd

TOOLS = Toolbox((RCLONE,))


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running_sshd(tmp_path_factory.mktemp("far") / "sshd") as running:
        yield running


@pytest.fixture
def nas(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    (tmp_path / "nas").mkdir()
    return tmp_path / "nas"


def over(sections: Mapping[str, str], nas: Path, sshd: Sshd) -> Carrying:
    """A job whose remote is `far`. `{sftp}` stands for a remote that reaches the NAS, `{nas}` for its folder."""
    user, _, host = sshd.access.target.partition("@")
    config = nas.parent / "rclone.conf"
    server = (
        f"[server]\ntype = sftp\nhost = {host}\nport = {sshd.access.port}\nuser = {user}\n"
        f"key_file = {sshd.access.key_path}\nknown_hosts_file = {sshd.access.known_hosts}\n"
        "shell_type = unix\nhashes = sha256\nsha256sum_command = sha256sum\n"
    )
    places = {"sftp": f"server:{nas}", "nas": str(nas)}
    wrapping = "".join(f"[{name}]\n{options.format(**places)}\n" for name, options in sections.items())
    config.write_text(server + wrapping)
    place = RclonePlace(RcloneRemote("far", "", config), tools=TOOLS, bandwidth=UNLIMITED)
    return Carrying(nas.parent / "run", nas, RemoteTransport(place, max_stream_bytes=1 << 30))


def rot(nas: Path) -> None:
    """A byte of the one file there changes; its size and time don't."""
    (path,) = (path for path in nas.rglob("*") if path.is_file())
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


HASHER = "type = hasher\nremote = {sftp}\nhashes = sha256\nmax_age = off"


def crypt(remote: str) -> str:
    obscured = subprocess.run([find_tool("rclone"), "obscure", "x"], capture_output=True, text=True, check=True)
    return (
        f"type = crypt\nremote = {remote}\npassword = {obscured.stdout.strip()}\n"
        "filename_encryption = off\nsuffix = none"
    )


@pytest.mark.parametrize(
    ("sections", "method", "host"),
    [
        pytest.param({"far": HASHER}, "download", gethostname(), id="remembered hashes"),
        pytest.param(
            {"far": "type = alias\nremote = inner:", "inner": HASHER}, "download", gethostname(), id="behind an alias"
        ),
        pytest.param({"far": crypt("{sftp}")}, "download", gethostname(), id="encrypted"),
        pytest.param({"far": "type = alias\nremote = {sftp}"}, "far_sha256", "far", id="an alias alone"),
        pytest.param({"far": "type = alias\nremote = {nas}"}, "far_sha256", gethostname(), id="of this machine"),
    ],
)
def test_a_rotten_copy_behind_it_is_found_and_who_read_it_is_told(
    sections: Mapping[str, str], method: str, host: str, nas: Path, sshd: Sshd
) -> None:
    job = over(sections, nas, sshd)
    write(job.source, b"a.tif", b"measured once" * 1000)
    copied = job.copy()
    outcome = job.verify(copied)
    assert (outcome.proven, outcome.method, outcome.host) == (True, method, host)
    assert (outcome.note == "hashed at the remote") == (host == "far")
    assert host == "far" or "far" in outcome.note
    rot(nas)
    # An encrypted file that rotted can't even be read: that is no proof either.
    if method == "download" and "crypt" in sections["far"]:
        with pytest.raises(TransferError):
            job.verify(copied)
    else:
        outcome = job.verify(copied)
        assert (outcome.proven, outcome.differing) == (False, (b"a.tif",))


def test_an_encrypted_file_that_rotted_differs_where_others_can_be_read(nas: Path, sshd: Sshd) -> None:
    job = over({"far": crypt("{sftp}")}, nas, sshd)
    for name in (b"a.tif", b"b.tif", b"c.tif"):
        write(job.source, name, name * 10_000)
    copied = job.copy()
    (path,) = nas.rglob("b.tif")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    outcome = job.verify(copied)
    assert (outcome.proven, outcome.hashed, outcome.differing, outcome.missing) == (False, 2, (b"b.tif",), ())
    assert [file.path for file in outcome.unreadable] == [b"b.tif"]
    assert "failed to authenticate decrypted block" in outcome.unreadable[0].words


@pytest.mark.parametrize(
    "sections",
    [
        pytest.param({"far": crypt("{nas}")}, id="encrypted"),
        pytest.param({"far": crypt(":local:{nas}")}, id="said in place"),
        pytest.param({"far": "type = union\nupstreams = {sftp} {nas}"}, id="one of several"),
        pytest.param({"far": "type = hasher\nremote = inner:\nhashes = sha256", "inner": crypt("{nas}")}, id="twice"),
        pytest.param({"far": "type = alias\nremote = far:"}, id="itself"),
    ],
)
def test_a_wrapped_folder_of_this_machine_is_refused(sections: Mapping[str, str], nas: Path, sshd: Sshd) -> None:
    job = over(sections, nas, sshd)
    write(job.source, b"a.tif", b"measured once")
    for attempt in (job.transport.check, job.copy):
        with pytest.raises(TransferError) as refused:
            attempt()
        assert refused.value.kind is FailureKind.CONFIGURATION
    assert not any(nas.iterdir())


@pytest.mark.parametrize(
    "sections",
    [
        pytest.param({"far": crypt("{sftp}")}, id="encrypted"),
        pytest.param({"far": "type = alias\nremote = {sftp}\nskip_links = false"}, id="an alias"),
        pytest.param({"far": "type = union\nupstreams = {sftp}/one {sftp}"}, id="one of several"),
        pytest.param({"far": "type = alias\nremote = inner:", "inner": HASHER}, id="twice"),
    ],
)
def test_what_a_symlink_behind_it_leads_to_is_no_copy(sections: Mapping[str, str], nas: Path, sshd: Sshd) -> None:
    (nas / "one").mkdir()
    job = over(sections, nas, sshd)
    for name in (b"a.tif", b"b.tif"):
        write(job.source, name, b"measured once" * 1000)
    copied = job.copy()
    assert job.verify(copied).proven
    (path,) = nas.rglob("a.tif")
    path.rename(nas.parent / "moved away")
    path.symlink_to(nas.parent / "moved away")
    outcome = job.verify(copied)
    assert not outcome.proven
    assert {*outcome.missing, *outcome.differing} == {b"a.tif"}


@pytest.mark.parametrize("said", ["skip_links=false", "key_use_agent=false,skip_links=0"])
def test_a_connection_string_that_lets_symlinks_be_followed_is_refused(said: str, nas: Path, sshd: Sshd) -> None:
    job = over({"far": f"type = alias\nremote = server,{said}:{nas}"}, nas, sshd)
    with pytest.raises(TransferError, match="skip_links") as refused:
        job.transport.check()
    assert refused.value.kind is FailureKind.CONFIGURATION
    asked = over({"far": f"type = alias\nremote = server,skip_links=true:{nas}"}, nas, sshd)
    asked.transport.check()
