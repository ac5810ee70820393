"""What is mounted in a copy while it is read back isn't in it either."""

from __future__ import annotations

import pytest

from services.sync_engine.transfer.transport import TransferError
from tests.integration.run_tree.test_mounts_below import mounted
from tests.integration.transfer.carrying import Carrying, write


def test_what_is_mounted_while_it_is_read_back_proves_nothing(
    carrying: Carrying, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(carrying.source, b"sub/only.tif", b"pixels")
    copied = carrying.copy()
    (carrying.run / "sub/only.tif").unlink()
    begin = carrying.progress.begin
    mount = mounted(carrying.source / "sub", carrying.run / "sub")

    def mount_and_begin(*told: object) -> None:
        mount.__enter__()
        begin(*told)  # type: ignore[arg-type]

    monkeypatch.setattr(carrying.progress, "begin", mount_and_begin)
    try:
        with pytest.raises(TransferError, match="is mounted in"):
            carrying.verify(copied)
    finally:
        mount.__exit__(None, None, None)
