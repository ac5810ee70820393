"""Closes the gate under a running transfer the moment an override is revoked or expires (SPEC §3)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from libs.event_log.store import EventStoreError
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.transfer.transfer_control import StopReason, TransferControl
from services.sync_engine.validation.presync_gate import GateView

_LOOK_SECONDS = 15.0
"""An expiry is a time on the wall clock, which may be changed meanwhile: it is looked at this often at least."""


class GateWatch:
    """Knows which runs are being transferred, and stops a transfer whose run is no longer let through."""

    def __init__(self) -> None:
        self._changed: dict[str, set[asyncio.Event]] = {}

    def run_changed(self, run: str) -> None:
        """The run's overrides may have changed."""
        for event in self._changed.get(run, ()):
            event.set()

    @asynccontextmanager
    async def over(self, bench: Workbench, view: GateView, control: TransferControl) -> AsyncIterator[None]:
        """While the block runs, `control` is stopped as soon as the overrides no longer cover the walk's findings."""
        changed = asyncio.Event()
        self._changed.setdefault(view.run.run, set()).add(changed)
        watching = asyncio.create_task(_watch(bench, view, control, changed), name=f"gate of {view.run.run}")
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.wait([watching])
            self._changed[view.run.run].discard(changed)
            if not self._changed[view.run.run]:
                del self._changed[view.run.run]


async def _watch(bench: Workbench, view: GateView, control: TransferControl, changed: asyncio.Event) -> None:
    while True:
        expiry = view.active.earliest_expiry
        seconds = None if expiry is None else min(_LOOK_SECONDS, max(0.0, (expiry - bench.clock()).total_seconds()))
        try:
            async with asyncio.timeout(seconds):
                await changed.wait()
        except TimeoutError:
            pass
        changed.clear()
        try:
            record = await bench.log.run(view.run.run)
        except EventStoreError:
            # Nobody can say any more whether the gate is open: then no further file is started.
            control.stop(StopReason.ENGINE_STOPPING)
            return
        view = view.with_overrides(record, bench.clock())
        if not view.is_open:
            control.stop(StopReason.GATE_CLOSED)
            return
