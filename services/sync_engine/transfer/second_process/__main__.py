"""`python -m services.sync_engine.transfer.second_process DESCRIPTOR`: serves lanes until the engine is gone.

The descriptor is a socket on which requests for lanes come; its end is the engine's, however it ended.
"""

from __future__ import annotations

import os
import socket
import sys
import threading

import msgspec

from libs.service_kit.version import LABFERRY_VERSION
from services.sync_engine.transfer.second_process.lane import Lane
from services.sync_engine.transfer.second_process.messages import MOST_REQUEST_BYTES, LaneRequest
from services.sync_engine.transfer.second_process.serving import serve


def main() -> None:
    """Ends with the process."""
    control = socket.socket(fileno=int(sys.argv[1]))
    control.send(LABFERRY_VERSION.encode())
    decoder = msgspec.msgpack.Decoder(LaneRequest)
    while True:
        try:
            request, descriptors, _, _ = socket.recv_fds(control, MOST_REQUEST_BYTES, 2)
        except OSError:
            # The engine was killed with what was sent to it unread.
            request, descriptors = b"", []
        if not request:
            # Lanes may be at work: what they do is of no use to anybody now.
            os._exit(0)
        if len(descriptors) != 2:
            # This process has too many open: the engine finds its end of the lane closed.
            for descriptor in descriptors:
                os.close(descriptor)
            continue
        connection, folder = descriptors
        lane = Lane(socket.socket(fileno=connection))
        threading.Thread(target=serve, args=(decoder.decode(request), folder, lane), daemon=True).start()


if __name__ == "__main__":
    main()
