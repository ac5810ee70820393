"""A WebDAV server that never answers a MOVE: the stall watch ends the transfer, and nothing has its final name."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from libs.service_kit.work_threads import WorkThreads
from services.sync_engine.jobs.progress import JobProgressMeter
from services.sync_engine.jobs.work_in_hand import WorkInHand
from services.sync_engine.transfer.transport import FailureKind, TransferError
from tests.faults.transfer.test_far_sides_fail import rclone
from tests.integration.transfer.carrying import Carrying, tree, write
from tests.integration.transfer.conforming import children_of_this_process
from tests.integration.transfer.far_servers import rclone_serving

STALL = 3.0


@contextmanager
def swallowing_moves(port: int) -> Iterator[int]:
    """A way to the server at `port` on which every MOVE is lost; its own port."""
    listener = socket.create_server(("127.0.0.1", 0))
    open_ends: list[socket.socket] = []

    def pass_on(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while (chunk := source.recv(65536)) and not chunk.startswith(b"MOVE "):
                target.sendall(chunk)

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", port))
                open_ends.extend((client, server))
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=pass_on, args=ends, daemon=True).start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join()
        for end in open_ends:
            end.close()


async def test_a_move_that_hangs_is_ended_by_the_stall_watch(tmp_path: Path) -> None:
    source, served = tmp_path / "run", tmp_path / "nas"
    source.mkdir()
    served.mkdir()
    write(source, b"a", b"x")
    config = tmp_path / "rclone.conf"
    before = children_of_this_process()
    with rclone_serving("webdav", served, tmp_path) as port, swallowing_moves(port) as way:
        running = children_of_this_process()
        config.write_text(f"[far]\ntype = webdav\nurl = http://127.0.0.1:{way}\nvendor = rclone\n")
        carrying = Carrying(source, served, rclone(config, ""))
        threads = WorkThreads("test")
        try:
            meter = JobProgressMeter(lambda: None)
            with pytest.raises(TransferError, match="not a byte moved") as stalled:
                await WorkInHand(threads, STALL).do("job", carrying.control, meter, carrying.copy)
        finally:
            threads.close()
        assert stalled.value.kind is FailureKind.NETWORK
        assert carrying.batches, "it had come as far as the landing"
        assert children_of_this_process() <= running
    assert children_of_this_process() <= before
    assert not carrying.run.exists() or b"a" not in tree(carrying.run)
