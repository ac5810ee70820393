"""A job that became another engine's meanwhile: nothing that lies at the destination is moved or replaced any more."""

from __future__ import annotations

import pytest

from services.sync_engine.transfer.sealed_file import SealedFile
from services.sync_engine.transfer.transfer_control import StopReason, TransferControl, TransferStoppedError
from tests.integration.transfer.carrying import TARGET, Carrying, tree, write

MTIME = 1_600_000_000_000_000_000


def test_nothing_more_is_set_aside(carrying: Carrying) -> None:
    names = [b"%d" % number for number in range(9)]
    for name in names:
        write(carrying.run, name, b"proven")
    control = TransferControl(lambda: not (carrying.destination / ".labferry-superseded/job-1" / TARGET / "4").exists())
    with pytest.raises(TransferStoppedError) as stopped:
        carrying.transport.set_aside(TARGET, names, job_id="job", attempt=1, control=control)
    assert stopped.value.reason is StopReason.LEASE_LOST
    assert control.stopped
    assert sorted(tree(carrying.run)) == names[5:]


def test_what_is_sealed_there_stays(carrying: Carrying) -> None:
    creation = SealedFile(b"creation.json", b'{"sync_status":"synced"}', MTIME)
    carrying.transport.seal([creation], job_id="job", control=carrying.control)
    # It stood still while the new content lay beside the old.
    control = TransferControl(lambda: len(list(carrying.destination.glob("creation.json*"))) == 1)
    with pytest.raises(TransferStoppedError):
        carrying.transport.seal(
            [SealedFile(creation.path, b'{"sync_status":"pending"}', MTIME)], job_id="job", control=control
        )
    assert tree(carrying.destination) == {b"creation.json": creation.content}


def test_its_own_earlier_copy_is_not_replaced(carrying: Carrying) -> None:
    write(carrying.source, b"a", b"first")
    carrying.copy()
    write(carrying.source, b"a", b"other content")
    landing = False

    def land(batch: object) -> None:
        nonlocal landing
        landing = True

    carrying.control = TransferControl(lambda: not landing)
    with pytest.raises(TransferStoppedError):
        carrying.copy(land)
    assert tree(carrying.run) == {b"a": b"first"}
