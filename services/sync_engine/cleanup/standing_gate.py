"""What the gate says of a run that is being deleted, asked again and again."""

from __future__ import annotations

from libs.run_tree.creation_errors import CreationError
from libs.service_kit.errors import LabferryError
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.validation.presync_gate import GateView, refusal
from services.sync_engine.validation.walk import WalkError


class StandingGate:
    """The run's files are walked once, when it is first asked: a walk for each portion of a large run would take longer
    than its deletion, and what appears later isn't deleted. Overrides and their ends are looked at each time."""

    def __init__(self, bench: Workbench, run: str) -> None:
        self._bench = bench
        self._run = run
        self._view: GateView | None = None

    async def refusal(self) -> str:
        """What closes the gate, or why it can't look; empty: nothing. Imports overrides that other programs wrote, as
        every look does. Errors of the log."""
        gate, now = self._bench.gate, self._bench.clock()
        try:
            if self._view is None:
                self._view = await gate.look(self._run, now)
            else:
                self._view = await gate.look_at_overrides(self._view, now)
        except (LabferryError, CreationError, WalkError) as error:
            return f"the gate can't look: {error}"
        return "" if self._view.is_open else refusal(self._view)
