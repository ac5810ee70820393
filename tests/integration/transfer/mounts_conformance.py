"""A folder or file that is mounted in a copy on this machine isn't in it: what is read there may be the very files that
are to go.
"""

from __future__ import annotations

import pytest

from services.sync_engine.transfer.transport import FailureKind, TransferError
from tests.integration.run_tree.test_mounts_below import mounted
from tests.integration.transfer.carrying import Carrying, write
from tests.integration.transfer.conforming import Conforming


class MountsConformance(Conforming):
    @pytest.mark.parametrize("what", ["sub", "sub/only.tif"])
    def test_neither_evidence_nor_a_copy_comes_of_it(self, carrying: Carrying, what: str) -> None:
        write(carrying.source, b"a.tif", b"pixels")
        write(carrying.source, b"sub/only.tif", b"pixels")
        copied = carrying.copy()
        assert carrying.verify(copied).proven
        (carrying.run / "sub/only.tif").write_bytes(b"rotten")
        with mounted(carrying.source / what, carrying.run / what):
            for act in (lambda: carrying.verify(copied), carrying.copy):
                with pytest.raises(TransferError) as refused:
                    act()
                assert refused.value.kind is FailureKind.DESTINATION_FILE_DIFFERS
                assert f"at {what} " in refused.value.message.replace(":", " ")
        assert carrying.verify(copied).differing == (b"sub/only.tif",)
