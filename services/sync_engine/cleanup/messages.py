"""Cleanups as protobuf messages."""

from __future__ import annotations

from labferry.sync.v1 import sync_service_pb2
from services.sync_engine.cleanup.clean_run import Cleaned
from services.sync_engine.cleanup.remaining import remaining_message

_MOST_REMAINING = 100


def cleaned_message(cleaned: Cleaned) -> sync_service_pb2.CleanRunResponse:
    return sync_service_pb2.CleanRunResponse(
        cleaned=cleaned.cleaned,
        interlocks=[
            sync_service_pb2.Interlock(name=i.name.value, satisfied=i.satisfied, detail=i.detail, not_asked=not i.asked)
            for i in cleaned.interlocks
        ],
        file_count=cleaned.file_count,
        byte_count=cleaned.byte_count,
        gone_count=cleaned.gone_count,
        gone_byte_count=cleaned.gone_byte_count,
        remaining=[remaining_message(r) for r in cleaned.remaining[:_MOST_REMAINING]],
    )
