"""How every transport is steered while it works: stopped, wound down."""

from __future__ import annotations

import os

import pytest

from services.sync_engine.transfer.incoming import INCOMING
from services.sync_engine.transfer.sealed_file import SealedFile
from services.sync_engine.transfer.transfer_control import StopReason, TransferControl, TransferStoppedError
from tests.integration.transfer.carrying import TARGET, Carrying, tree, write
from tests.integration.transfer.conforming import Conforming


class SteeringConformance(Conforming):
    """The engine's hand on a transfer."""

    def test_a_stop_in_the_middle_and_another_attempt(self, carrying: Carrying) -> None:
        for number in range(self.several_batches):
            write(carrying.source, b"%04d" % number, b"x")
        with pytest.raises(TransferStoppedError) as stop:
            carrying.copy(lambda batch: carrying.control.stop(StopReason.CANCELLED))
        assert stop.value.reason is StopReason.CANCELLED
        at_destination = tree(carrying.run) if carrying.run.exists() else {}
        assert at_destination.items() <= tree(carrying.source).items()
        carrying.control = TransferControl()
        carrying.transport.sweep("job", keep_attempt=None, control=carrying.control)
        copied = carrying.copy()
        assert tree(carrying.run) == tree(carrying.source)
        assert carrying.verify(copied).proven

    def test_winding_down_lands_what_is_whole_and_begins_no_other(self, carrying: Carrying) -> None:
        for number in range(self.several_batches):
            write(carrying.source, b"%04d" % number, b"x")
        with pytest.raises(TransferStoppedError):
            carrying.copy(lambda batch: carrying.control.wind_down(StopReason.ENGINE_STOPPING))
        assert 0 < len(tree(carrying.run)) < self.several_batches

    def test_a_stop_ends_everything_else_too(self, carrying: Carrying) -> None:
        write(carrying.source, b"a", b"x")
        carrying.copy()
        write(carrying.destination, os.fsencode(INCOMING) + b"/job-9/left", b"half")
        stopped = TransferControl()
        stopped.stop(StopReason.CANCELLED)
        transport = carrying.transport
        for work in (
            lambda: transport.seal([SealedFile(os.fsencode(TARGET) + b"/a", b"y", 1)], job_id="job", control=stopped),
            lambda: transport.digests(TARGET, [b"a"], control=stopped),
            lambda: transport.set_aside(TARGET, [b"a"], job_id="job", attempt=1, control=stopped),
            lambda: transport.sweep("job", keep_attempt=None, control=stopped),
        ):
            with pytest.raises(TransferStoppedError):
                work()
        assert tree(carrying.run) == {b"a": b"x"}
        assert (carrying.destination / os.fsdecode(INCOMING) / "job-9" / "left").exists()

    def test_room_and_the_check(self, carrying: Carrying) -> None:
        room = carrying.transport.free_bytes()
        assert room is None or room > 0
        carrying.transport.check()
        incoming = carrying.destination / os.fsdecode(INCOMING)
        assert not incoming.exists() or os.listdir(incoming) == []
