"""A configured place that keeps copies."""

from __future__ import annotations

from dataclasses import dataclass

from services.sync_engine.transfer.transport import Transport


@dataclass(frozen=True, slots=True)
class Destination:
    """One destination of one equipment. `kind` names its transport as the configuration does. `max_stream_bytes`: the
    largest file that it may download to check it; None: it never has to."""

    name: str
    required: bool
    kind: str
    transport: Transport
    max_stream_bytes: int | None = None
