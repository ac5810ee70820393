"""How every transport seals that puts files together in the incoming folder first."""

from __future__ import annotations

import os

from services.sync_engine.transfer.incoming import INCOMING
from services.sync_engine.transfer.sealed_file import SealedFile
from tests.integration.transfer.carrying import TARGET, Carrying, write
from tests.integration.transfer.conforming import Conforming


class SealsConformance(Conforming):
    """What a killed engine left of a seal goes with the job's next."""

    def test_a_seal_removes_what_dead_seals_of_its_job_left(self, carrying: Carrying) -> None:
        for folder in (b"job-seal-0123456789abcdef", b"job-2-seal-0123456789abcdef", b"job-2"):
            write(carrying.destination, INCOMING + b"/" + folder + b"/0", b"half")
        creation = SealedFile(os.fsencode(TARGET) + b"/.exlab-wizard/creation.json", b"synced", 1_600_000_000 * 10**9)
        carrying.transport.seal([creation], job_id="job", control=carrying.control)
        left = os.listdir(carrying.destination / os.fsdecode(INCOMING))
        assert sorted(left) == ["job-2", "job-2-seal-0123456789abcdef"]
        assert (carrying.run / ".exlab-wizard" / "creation.json").read_bytes() == b"synced"
