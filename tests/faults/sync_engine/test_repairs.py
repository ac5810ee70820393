"""The repair of a copy that rotted comes to an end, whatever the destination does (SPEC §4, ARCHITECTURE §4)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from labferry.events.v1 import job_events_pb2 as events
from services.sync_engine.audits.auditor import PassRules
from services.sync_engine.event_types import EVENT_TYPES, job_stream
from services.sync_engine.transfer.transfer_control import TransferControl, TransferStoppedError
from services.sync_engine.transfer.transport import CopiedFile, FailureKind, TransferError
from tests.faults.sync_engine.audited_copy import EQUIPMENT, Audited, audited
from tests.faults.sync_engine.engine_parts import RUN, TEST
from tests.integration.sync_engine.test_audits import rot

A_PASS_ONLY = PassRules(passes=2, interval=timedelta(hours=1000), scrub_interval=None)
PATIENCE = 30.0
SOON = 0.2
"""Seconds without a sign of life after which work is ended, in the tests that wait for it."""


def _instead_of_copying(copy: Audited, do: Callable[..., Sequence[CopiedFile]]) -> None:
    """`do` gets the real method first, then what the engine gave it."""
    real: Any = copy.storage.copy
    copy.storage.copy = lambda *arguments, **fields: do(real, *arguments, **fields)  # type: ignore[attr-defined]


async def _told(copy: Audited, kind: type[Any]) -> list[Any]:
    stream = await copy.parts.bench.log.store.read_stream(job_stream((await copy.job()).job_id))
    return [payload for payload in map(EVENT_TYPES.decode, stream) if isinstance(payload, kind)]


def _doubted(copy: Audited) -> tuple[str, ...]:
    return copy.parts.targets.target(EQUIPMENT, copy.place.name).doubted


def _superseded(copy: Audited) -> list[Path]:
    return [path for path in (copy.parts.folder / "nas" / ".labferry-superseded").rglob("*") if path.is_file()]


async def test_a_landing_that_always_fails_is_not_tried_for_ever(tmp_path: Path) -> None:
    def fail_to_land(real: Any, *arguments: Any, **fields: Any) -> Sequence[CopiedFile]:
        announce = fields.pop("before_landing")

        def announce_and_fail(batch: Sequence[CopiedFile]) -> None:
            announce(batch)
            raise TransferError(FailureKind.CONFIGURATION, "Permission denied")

        copied: Sequence[CopiedFile] = real(*arguments, before_landing=announce_and_fail, **fields)
        return copied

    async with audited(tmp_path) as copy:
        _instead_of_copying(copy, fail_to_land)
        rot(copy.parts.there / "a.tif")
        for _ in range(5):
            await copy.audit()
        assert len(await _told(copy, events.JobCopyRepaired)) == 2
        assert [list(failed.given_up) for failed in await copy.readings()] == [[], [], *[["a.tif"]] * 3]
        assert _doubted(copy) == (f"{RUN}/a.tif",)
        assert len(_superseded(copy)) == 1


async def test_what_was_given_up_stays_so_until_the_destination_is_trusted_and_is_put_back_at_once_then(
    tmp_path: Path,
) -> None:
    async with audited(tmp_path, rules=A_PASS_ONLY) as copy:
        for _ in range(5):
            (copy.parts.there / "a.tif").unlink(missing_ok=True)
            await copy.audit()
        assert len(await _told(copy, events.JobCopyRepaired)) == 1
        await copy.parts.pass_over()
        failure = (await copy.job()).failure
        assert failure is not None
        assert "not put back again" in failure.message, "a pass that an operator asks for repairs nothing"
        copy.auditor.start()
        await copy.parts.targets.trust(EQUIPMENT, copy.place.name, TEST)
        async with asyncio.timeout(PATIENCE):
            while not (await copy.job()).verify_passes:
                await copy.projections.query(lambda c: None)
        assert (copy.parts.there / "a.tif").read_bytes() == b"a.tif"
        assert ((await copy.job()).given_up, _doubted(copy)) == ((), ())


async def test_a_repair_that_a_crash_ended_is_done_again(tmp_path: Path) -> None:
    async with audited(tmp_path) as copy:
        rot(copy.parts.there / "a.tif")

        class DiedError(BaseException):
            """As kill -9: nothing is done after it."""

        def die(real: Any, *arguments: Any, **fields: Any) -> Sequence[CopiedFile]:
            announce = fields.pop("before_landing")

            def announce_and_die(batch: Sequence[CopiedFile]) -> None:
                announce(batch)
                raise DiedError

            copied: Sequence[CopiedFile] = real(*arguments, before_landing=announce_and_die, **fields)
            return copied

        _instead_of_copying(copy, die)
        with pytest.raises(DiedError):
            await copy.audit()
        del copy.storage.copy  # type: ignore[attr-defined]
        await copy.audit()
        await copy.audit()
        assert (copy.parts.there / "a.tif").read_bytes() == b"a.tif"
        assert (await copy.job()).verify_passes == 1
        assert _doubted(copy) == ()


async def test_what_is_lost_again_after_it_landed_is_given_up_and_the_other_files_are_not(tmp_path: Path) -> None:
    async with audited(tmp_path) as copy:
        (copy.parts.there / "a.tif").unlink()
        await copy.audit()
        assert [landed.batch_count for landed in await _told(copy, events.JobRepairLanded)] == [1]
        (copy.parts.there / "a.tif").unlink()
        rot(copy.parts.there / "b.tif")
        await copy.audit()
        assert [list(failed.given_up) for failed in await copy.readings()] == [[], ["a.tif"]]
        assert not (copy.parts.there / "a.tif").exists()
        assert (copy.parts.there / "b.tif").read_bytes() == b"b.tif"
        (failure,) = [(await copy.job()).failure]
        assert failure is not None
        assert "not put back again, because it was wrong after that already: a.tif;" in failure.message


async def test_what_has_no_source_any_more_stays_where_it_is_though_given_up(tmp_path: Path) -> None:
    async with audited(tmp_path) as copy:
        (copy.parts.there / "a.tif").unlink()
        await copy.audit()
        (copy.parts.here / "a.tif").write_bytes(b"another")
        rot(copy.parts.there / "a.tif")
        await copy.audit()
        assert (await copy.readings())[-1].given_up == ["a.tif"]
        assert (copy.parts.there / "a.tif").exists()
        assert _superseded(copy) == []


async def test_a_repair_that_hangs_is_ended_and_lands_nothing_afterwards(tmp_path: Path) -> None:
    hung, released, refused = threading.Event(), threading.Event(), threading.Event()

    def hang(real: Any, *arguments: Any, **fields: Any) -> Sequence[CopiedFile]:
        hung.set()
        released.wait(PATIENCE)
        try:
            fields["before_landing"]([])
        except TransferStoppedError:
            refused.set()
        return ()

    async with audited(tmp_path, stall_seconds=SOON) as copy:
        _instead_of_copying(copy, hang)
        rot(copy.parts.there / "a.tif")
        async with asyncio.timeout(PATIENCE):
            await copy.audit()
        assert hung.is_set()
        released.set()
        assert await asyncio.to_thread(refused.wait, PATIENCE)
        assert await _told(copy, events.JobCopyRepaired) == []


async def test_a_repair_is_ended_by_the_drain(tmp_path: Path) -> None:
    hung, released = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def hang(real: Any, *arguments: Any, **fields: Any) -> Sequence[CopiedFile]:
        loop.call_soon_threadsafe(hung.set)
        released.wait(PATIENCE)
        return ()

    async with audited(tmp_path) as copy:
        _instead_of_copying(copy, hang)
        rot(copy.parts.there / "a.tif")
        async with asyncio.timeout(PATIENCE):
            audit = asyncio.create_task(copy.audit())
            await hung.wait()
            copy.in_hand.stop_all()
            copy.in_hand.give_up()
            with pytest.raises(TransferStoppedError):
                await audit
        released.set()


async def test_a_repair_gives_way_and_is_gone_on_with_when_the_slot_is_free(tmp_path: Path) -> None:
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wait_for_the_end(real: Any, *arguments: Any, **fields: Any) -> Sequence[CopiedFile]:
        control: TransferControl = fields["control"]
        if begun.is_set():
            copied: Sequence[CopiedFile] = real(*arguments, **fields)
            return copied
        loop.call_soon_threadsafe(begun.set)
        control.wait(PATIENCE)
        raise AssertionError("it was not asked to give way")

    async with audited(tmp_path, rules=A_PASS_ONLY) as copy:
        _instead_of_copying(copy, wait_for_the_end)
        rot(copy.parts.there / "a.tif")
        copy.parts.clock.now += timedelta(hours=1001)
        copy.auditor.start()
        async with asyncio.timeout(PATIENCE):
            await begun.wait()
            copy.parts.take_slot(True)
            copy.parts.take_slot(False)
            while not await _told(copy, events.JobRepairLanded):
                await copy.projections.query(lambda c: None)
        assert (copy.parts.there / "a.tif").read_bytes() == b"a.tif"
