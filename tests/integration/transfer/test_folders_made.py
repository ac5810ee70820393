"""What making a run's folders costs at a server that keeps no times of them."""

from __future__ import annotations

from pathlib import Path

from services.sync_engine.transfer.bandwidth import UNLIMITED
from services.sync_engine.transfer.rclone_place import RclonePlace
from services.sync_engine.transfer.rclone_remote import RcloneRemote
from services.sync_engine.transfer.remote_transport import RemoteTransport
from services.sync_engine.transfer.tools import RCLONE, Toolbox
from tests.integration.transfer.carrying import Carrying, tree, write
from tests.integration.transfer.far_servers import rclone_serving
from tests.integration.transfer.http_gate import gate_before

NOTHING = "(?!)"


def test_only_folders_that_are_not_there_are_made(tmp_path: Path) -> None:
    source, served = tmp_path / "run", tmp_path / "nas"
    served.mkdir()
    write(source, b"a", b"x")
    for number in range(5):
        (source / "old" / str(number)).mkdir(parents=True)
    config = tmp_path / "rclone.conf"
    with rclone_serving("webdav", served, tmp_path) as port, gate_before(port, NOTHING, 500, b"") as gate:
        config.write_text(
            f"[far]\ntype = webdav\nurl = http://127.0.0.1:{gate.port}\nvendor = rclone\npacer_min_sleep = 1ms\n"
        )
        place = RclonePlace(RcloneRemote("far", "", config), tools=Toolbox((RCLONE,)), bandwidth=UNLIMITED)
        carrying = Carrying(source, served, RemoteTransport(place, max_stream_bytes=1 << 30))
        carrying.copy()
        assert tree(carrying.run) == tree(source)
        (source / "old" / "new").mkdir()
        gate.asked.clear()
        copied = carrying.copy()
        made = {line.split()[1].strip("/") for line in gate.asked if line.startswith("MKCOL")}
        assert {path.rpartition("/")[2] for path in made if "/old/" in path} == {"new"}
        assert tree(carrying.run) == tree(source)
        assert carrying.verify(copied).proven
