"""What a cleanup reads, here and at the destination, ends with the engine, gives way, and hangs for nobody else."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from libs.service_kit.errors import UnavailableError
from services.sync_engine.cleanup.deletion import delete_files
from services.sync_engine.cleanup.interlocks import CleanupRules
from services.sync_engine.cleanup.local_files import look_at_local_files
from services.sync_engine.cleanup.ticket import Limits
from services.sync_engine.engine_log import BY_ITSELF
from services.sync_engine.errors import DestinationUnusableError
from services.sync_engine.jobs import making_way
from services.sync_engine.jobs.file_list import read_copied
from services.sync_engine.jobs.job import Job
from services.sync_engine.jobs.ownership import LeasedOwnership, LeaseTerms
from services.sync_engine.transfer.bandwidth import BandwidthBrake
from services.sync_engine.transfer.transfer_control import StopReason, TransferControl, TransferStoppedError
from services.sync_engine.transfer.transport import VerifyOutcome
from tests.faults.sync_engine.engine_parts import RUN, Parts, engine_parts

RULES = CleanupRules(True, 1, timedelta(0), True, Limits(1000, 1 << 40))
PATIENCE = 60.0
LARGE = 6 << 20


@asynccontextmanager
async def proven(folder: Path, content: bytes = b"pixels", **options: Any) -> AsyncIterator[Parts]:
    async with engine_parts(folder, RULES, **options) as parts:
        (parts.here / "a.tif").write_bytes(content)
        await parts.bring()
        yield parts


async def _job(parts: Parts) -> Job:
    return (await parts.bench.jobs_of_run(RUN))[-1]


class _Reading:
    """Stands before the transport's own: tells that a reading has begun, and lets it hang or go on."""

    def __init__(self, parts: Parts, *, hangs: bool = False) -> None:
        self.begun = asyncio.Event()
        self.count = 0
        self.goes_on = threading.Event()
        loop, transport = asyncio.get_running_loop(), parts.bench.destinations["CONFOCAL_01"][0].transport
        verify: Callable[..., VerifyOutcome] = transport.verify

        def heard_of(*arguments: Any, control: TransferControl, **fields: Any) -> VerifyOutcome:
            self.count += 1
            loop.call_soon_threadsafe(self.begun.set)
            while not self.goes_on.wait(0.01):
                if not hangs:
                    control.look()
            return verify(*arguments, control=control, **fields)

        transport.verify = heard_of  # type: ignore[method-assign]


async def _nothing_is_held_against_the_copy(parts: Parts) -> None:
    job = await _job(parts)
    assert (job.verify_passes, job.failure) == (1, None)
    assert (parts.here / "a.tif").exists()


async def test_a_stop_ends_a_reading_at_once_and_it_is_no_failed_pass(tmp_path: Path) -> None:
    async with proven(tmp_path) as parts:
        reading = _Reading(parts)
        cleaning = asyncio.create_task(parts.clean())
        async with asyncio.timeout(PATIENCE):
            await reading.begun.wait()
            await parts.cleaner.close()
            with pytest.raises(UnavailableError):
                await cleaning
        await _nothing_is_held_against_the_copy(parts)


async def test_what_a_cleanup_came_to_whose_caller_is_gone_is_told_in_the_log(tmp_path: Path) -> None:
    async with proven(tmp_path) as parts:
        reading, unheard = _Reading(parts), []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: unheard.append(context["message"]))
        cleaning = asyncio.create_task(parts.clean())
        async with asyncio.timeout(PATIENCE):
            await reading.begun.wait()
            cleaning.cancel()
            await asyncio.wait([cleaning])
            with capture_logs() as lines:
                await parts.cleaner.close()
                await asyncio.sleep(0)
        gc.collect()
        assert unheard == []
        assert [line["problem"] for line in lines if line["event"] == "cleanup_failed"] == ["the engine ends"]


async def test_a_stop_does_not_wait_for_a_reading_that_hangs(tmp_path: Path) -> None:
    async with proven(tmp_path, stall_seconds=2.0) as parts:
        reading = _Reading(parts, hangs=True)
        cleaning = asyncio.create_task(parts.clean())
        async with asyncio.timeout(PATIENCE / 2):
            await reading.begun.wait()
            await parts.cleaner.close()
        assert cleaning.done()
        await _nothing_is_held_against_the_copy(parts)
        reading.goes_on.set()


async def test_a_reading_that_hangs_is_a_pass_that_could_not_check(tmp_path: Path) -> None:
    async with proven(tmp_path, stall_seconds=0.5) as parts:
        reading = _Reading(parts, hangs=True)
        async with asyncio.timeout(PATIENCE):
            answer = await parts.clean()
        assert "fresh_read_back" in [i.name for i in answer.interlocks if not i.satisfied]
        job = await _job(parts)
        assert job.failure is not None
        assert "not a byte moved" in job.failure.message
        reading.goes_on.set()


async def test_a_verification_that_hangs_is_ended_and_told(tmp_path: Path) -> None:
    async with proven(tmp_path, stall_seconds=0.5) as parts:
        reading = _Reading(parts, hangs=True)
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(DestinationUnusableError, match="not a byte moved"):
                await parts.pass_over()
        reading.goes_on.set()


async def test_who_goes_away_from_a_verification_that_hangs_is_not_kept(tmp_path: Path) -> None:
    async with proven(tmp_path) as parts:
        reading = _Reading(parts, hangs=True)
        asking = asyncio.create_task(parts.pass_over())
        async with asyncio.timeout(PATIENCE / 2):
            await reading.begun.wait()
            asking.cancel()
            await asyncio.wait([asking])
        await _nothing_is_held_against_the_copy(parts)
        reading.goes_on.set()


async def test_by_itself_it_waits_for_a_free_slot_and_begins_again_after_a_transfer(tmp_path: Path) -> None:
    async with proven(tmp_path) as parts:
        reading = _Reading(parts)
        parts.take_slot(True)
        cleaning = asyncio.create_task(parts.cleaner.clean(RUN, BY_ITSELF))
        asked = asyncio.create_task(parts.cleaner.look(RUN))
        async with asyncio.timeout(PATIENCE):
            await asked
            assert reading.count == 0
            parts.take_slot(False)
            await reading.begun.wait()
            parts.take_slot(True)
            reading.begun.clear()
            parts.take_slot(False)
            await reading.begun.wait()
            reading.goes_on.set()
            assert (await cleaning).cleaned
        assert reading.count == 2
        assert (await _job(parts)).failure is None


async def test_an_equipment_that_is_never_idle_has_its_copies_read_beside_its_transfers(tmp_path: Path) -> None:
    async with proven(tmp_path) as parts:
        reading = _Reading(parts)
        parts.take_slot(True)
        cleaning = asyncio.create_task(parts.cleaner.clean(RUN, BY_ITSELF))
        async with asyncio.timeout(PATIENCE):
            await parts.cleaner.look(RUN)
            parts.clock.passed += making_way.PATIENCE.total_seconds() - 60
            assert reading.count == 0
            parts.clock.passed += 61
            # The next transfer follows at once, and another one while the copy is read.
            parts.take_slot(False)
            parts.take_slot(True)
            await reading.begun.wait()
            parts.take_slot(True)
            reading.goes_on.set()
            assert (await cleaning).cleaned
        assert reading.count == 1


async def test_what_somebody_asks_for_does_not_wait_for_transfers(tmp_path: Path) -> None:
    async with proven(tmp_path) as parts:
        parts.take_slot(True)
        async with asyncio.timeout(PATIENCE):
            assert (await parts.clean()).cleaned


async def test_who_asks_does_not_wait_for_what_waits_by_itself(tmp_path: Path) -> None:
    async with proven(tmp_path) as parts:
        reading = _Reading(parts)
        reading.goes_on.set()
        parts.take_slot(True)
        by_itself = asyncio.create_task(parts.cleaner.clean(RUN, BY_ITSELF))
        async with asyncio.timeout(PATIENCE):
            # It has the run by then: what is asked for after it is answered after it.
            await parts.cleaner.look(RUN)
            assert (await parts.clean()).cleaned
            assert (await by_itself).cleaned


async def test_what_is_read_for_somebody_who_asks_gives_way_no_more(tmp_path: Path) -> None:
    async with proven(tmp_path) as parts:
        reading = _Reading(parts)
        by_itself = asyncio.create_task(parts.cleaner.clean(RUN, BY_ITSELF))
        async with asyncio.timeout(PATIENCE):
            await reading.begun.wait()
            asked = asyncio.create_task(parts.clean())
            await parts.cleaner.look(RUN)
            parts.take_slot(True)
            reading.goes_on.set()
            assert (await asked).cleaned
            assert (await by_itself).cleaned
        assert reading.count == 1


async def test_a_wish_whose_caller_left_before_its_turn_is_taken_back(tmp_path: Path) -> None:
    def wishes() -> int:
        return sum(task.get_name() == f"cleanup of {RUN}" for task in asyncio.all_tasks())

    async with proven(tmp_path) as parts:
        reading = _Reading(parts)
        first = asyncio.create_task(parts.clean())
        async with asyncio.timeout(PATIENCE):
            await reading.begun.wait()
            second = asyncio.create_task(parts.clean())
            await parts.cleaner.look(RUN)
            assert wishes() == 2
            second.cancel()
            await asyncio.wait([second])
            while wishes() == 2:
                await asyncio.sleep(0)
            # One whose turn has come goes on without its caller.
            first.cancel()
            await asyncio.wait([first])
            assert wishes() == 1
            reading.goes_on.set()
            assert (await parts.clean()).cleaned
        assert reading.count == 1


async def test_reading_keeps_to_the_bandwidth_of_the_destination(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with proven(tmp_path, b"x" * LARGE, upload_mbps=800) as parts:
        taken: list[int] = []
        take = BandwidthBrake.take

        def taking(brake: BandwidthBrake, nbytes: int, control: TransferControl) -> None:
            taken.append(nbytes)
            take(brake, nbytes, control)

        monkeypatch.setattr(BandwidthBrake, "take", taking)
        assert (await parts.clean()).cleaned
        assert sum(taken) == LARGE


async def test_what_is_only_too_large_to_be_checked_did_not_rot(tmp_path: Path) -> None:
    async with proven(tmp_path) as parts:
        transport: Any = parts.bench.destinations["CONFOCAL_01"][0].transport
        verify = transport.verify

        def too_large(*arguments: Any, **fields: Any) -> VerifyOutcome:
            outcome: VerifyOutcome = verify(*arguments, **fields)
            return dataclasses.replace(outcome, hashed=0, matched=0, evidence=(), oversize=(b"a.tif",))

        transport.verify = too_large
        answer = await parts.clean()
        (lacking,) = [i for i in answer.interlocks if i.name == "fresh_read_back"]
        assert not lacking.satisfied
        assert "verify_skipped_oversize: a.tif" in lacking.detail
        await _nothing_is_held_against_the_copy(parts)


async def test_hashing_here_is_ended_too(tmp_path: Path) -> None:
    async with proven(tmp_path, b"x" * LARGE) as parts:
        located, job = await parts.bench.locate(RUN), await _job(parts)
        control = TransferControl()
        control.stop(StopReason.ENGINE_STOPPING)
        files = read_copied(parts.bench.blobs, job.files_blob or "")
        with pytest.raises(TransferStoppedError):
            look_at_local_files(located, [files], control)
        deleted = delete_files(located.folder, files, lambda: True, control.raise_if_stopped)
        assert (deleted.files, deleted.remaining) == ([], [])
        assert (parts.here / "a.tif").stat().st_size == LARGE


async def test_no_slot_of_the_equipment_is_needed(tmp_path: Path) -> None:
    terms, logger = LeaseTerms(30.0), structlog.get_logger()

    def engine(name: str, store: Any) -> LeasedOwnership:
        return LeasedOwnership(store.leases, name, lambda _: 1, lambda job_id: None, logger, terms)

    async with proven(tmp_path, owned=lambda store: engine("a", store)) as parts:
        other = engine("b", parts.bench.log.store)
        async with other.over("another job", "CONFOCAL_01") as taken:
            assert taken
            assert (await parts.clean()).cleaned
