"""A client process that follows a log and writes down what it saw: `python -m … ADDRESS TOKEN FILE`.

One line a message: store, position to resume after, and the events in it. What it saw and where it goes on are one
line, so that both survive together; half a line at the end was never handled.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import grpc

from labferry.events.v1 import event_log_service_pb2 as pb
from labferry.events.v1 import event_log_service_pb2_grpc as pb_grpc
from libs.service_kit.channel import open_channel


async def follow(address: str, token: str, file: Path) -> None:
    handled = whole_lines(file.read_bytes())
    with file.open("r+b") as notes:
        notes.truncate(len(handled))
        notes.seek(0, os.SEEK_END)
        cursor = json.loads(handled.splitlines()[-1]) if handled else {"position": 0, "store_id": None}
        while True:
            request = pb.SubscribeEventsRequest(after_position=cursor["position"], store_id=cursor["store_id"])
            try:
                async with open_channel(address, lambda: token) as channel:
                    async for step in pb_grpc.EventLogServiceStub(channel).SubscribeEvents(request):
                        events = [[event.position, event.event_id] for event in step.events.events]
                        cursor = {"position": step.position, "store_id": step.store_id, "events": events}
                        notes.write(json.dumps(cursor).encode() + b"\n")
                        notes.flush()
                        request.after_position, request.store_id = step.position, step.store_id
            except grpc.aio.AioRpcError as error:
                # The service died or is starting; anything else is a defect, and ends this process.
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                    raise
                await asyncio.sleep(0.02)


def whole_lines(content: bytes) -> bytes:
    return content[: content.rfind(b"\n") + 1]


if __name__ == "__main__":
    asyncio.run(follow(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
