"""Somebody with the file, the blobs and the checkpoints: VerifyLog and the command line say what, and where."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from labferry.events.v1 import event_log_service_pb2 as pb
from libs.event_log import checkpoint
from libs.event_log.sqlite_schema import EVENT_COLUMNS
from tests.integration.event_log.changed_file import chain_anew, cut_off, tamper
from tests.integration.event_log.events import counted, noted, to
from tests.integration.event_log.served_log import Place, sealed, serving

LABFERRY = Path(sys.executable).parent / "labferry"
BLOB = "5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9"
"""SHA-256 of "0"."""


@pytest.fixture
async def place(tmp_path: Path) -> Place:
    """42 events, checkpoints at 1, 11, 21, 31 and 42; event 6 names a blob, and event 41 again. Nothing runs."""
    place = Place(tmp_path)
    async with serving(place) as served:
        assert await served.blobs.put(b"0") == BLOB
        await served.keeper.make()
        for number in range(2, 42):
            event = sealed(BLOB) if number in (6, 41) else counted(number)
            await served.store.append([to(f"s-{number % 3}", event)])
            if number in (11, 21, 31):
                await served.keeper.make()
        await served.store.append([to("s-0", noted("last"))])
    return place


async def verdict_on(place: Place) -> pb.VerifyLogResponse:
    async with serving(place) as served:
        return await served.verify()


async def test_an_untouched_log_is_intact(place: Place) -> None:
    answer = await verdict_on(place)
    assert answer.intact, answer
    assert (answer.events_checked, answer.blobs_checked) == (42, 1)
    # In both places.
    assert answer.checkpoints_checked >= 2 * 5
    assert not answer.unread_folders


@dataclass(frozen=True)
class Change:
    """What somebody does to the file, and which position the chain itself must name."""

    statements: tuple[str, ...]
    position: int


CHANGES = {
    "a changed byte": Change(("UPDATE events SET payload = x'0812' WHERE position = 17",), 17),
    "a removed event": Change(("DELETE FROM events WHERE position = 23",), 23),
    "an added event": Change(
        (
            f"INSERT INTO events ({EVENT_COLUMNS}) SELECT position + 1, stream, revision + 50, type, 'new-id',"
            " recorded_ns, actor, payload, hash, may_ignore, '', '', '', '' FROM events WHERE position = 42",
        ),
        43,
    ),
    "swapped events": Change(
        (
            "UPDATE events SET position = -1 WHERE position = 11",
            "UPDATE events SET position = 11 WHERE position = 12",
            "UPDATE events SET position = 12 WHERE position = -1",
        ),
        11,
    ),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_a_change_of_the_file(place: Place, name: str) -> None:
    change = CHANGES[name]
    tamper(place.database, *change.statements)
    answer = await verdict_on(place)
    assert (answer.intact, answer.first_bad_position) == (False, change.position), answer


async def test_a_cut_off_tail(place: Place) -> None:
    cut_off(place.database, 35)
    answer = await verdict_on(place)
    assert (answer.intact, answer.first_bad_position) == (False, 42)
    assert {problem.position for problem in answer.checkpoint_problems} == {42}
    assert "the log ends at 35" in answer.reason


async def test_a_cut_off_tail_that_grew_again(place: Place) -> None:
    cut_off(place.database, 35)
    async with serving(place) as served:
        for number in range(20):
            await served.store.append([to("s-0", counted(number))])
        answer = await served.verify()
    assert (answer.intact, answer.first_bad_position) == (False, 42)
    assert "Events after position 31 and up to 42 were replaced" in answer.reason


async def test_a_rebuilt_chain(place: Place) -> None:
    tamper(place.database, "UPDATE events SET actor = 'nobody' WHERE position = 17")
    chain_anew(place.database)
    answer = await verdict_on(place)
    assert (answer.intact, answer.first_bad_position, answer.events_checked) == (False, 21, 42)
    assert {problem.position for problem in answer.checkpoint_problems} == {21, 31, 42}
    assert "Events after position 11 and up to 21 were replaced" in answer.reason
    files = {problem.file for problem in answer.checkpoint_problems}
    assert files == {str(path) for path in place.checkpoint_files()}


async def test_a_rebuilt_chain_with_the_state_folders_checkpoints_gone(place: Place) -> None:
    tamper(place.database, "UPDATE events SET actor = 'nobody' WHERE position = 17")
    chain_anew(place.database)
    for path in (place.service / "checkpoints").glob("*"):
        path.unlink()
    answer = await verdict_on(place)
    assert (answer.intact, answer.first_bad_position) == (False, 21)
    assert all(str(place.outside) in problem.file for problem in answer.checkpoint_problems)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def _without(lines: list[dict[str, Any]], number: int) -> list[dict[str, Any]]:
    return [line for line in lines if line["number"] != number]


def _changed(lines: list[dict[str, Any]], number: int) -> list[dict[str, Any]]:
    return [{**line, "time": "2020-01-01T00:00:00.000000Z"} if line["number"] == number else line for line in lines]


def _forged(lines: list[dict[str, Any]], number: int) -> list[dict[str, Any]]:
    """Whoever has no key of the service signs with one of his own."""
    key = Ed25519PrivateKey.generate()

    def sign_anew(line: dict[str, Any]) -> dict[str, Any]:
        read = checkpoint.from_line(json.dumps(line).encode())
        signed: dict[str, Any] = json.loads(checkpoint.to_line(checkpoint.sign(read.checkpoint, key)))
        return signed

    return [sign_anew(line) if line["number"] == number else line for line in lines]


@pytest.mark.parametrize(
    ("change", "position", "words"),
    [
        (_without, 0, "checkpoint 3 is missing"),
        (_changed, 21, "the signature doesn't fit"),
        (_forged, 21, "which this service doesn't know"),
    ],
)
@pytest.mark.parametrize("where", [0, 1])
async def test_a_checkpoint_that_is_missing_changed_or_forged(
    place: Place,
    change: Callable[[list[dict[str, Any]], int], list[dict[str, Any]]],
    position: int,
    words: str,
    where: int,
) -> None:
    path = place.checkpoint_files()[where]
    lines = _lines(path)
    (number,) = [line["number"] for line in lines if line["position"] == 21]
    path.write_text("".join(json.dumps(line) + "\n" for line in change(lines, number)), encoding="utf-8")
    answer = await verdict_on(place)
    assert not answer.intact
    (problem,) = answer.checkpoint_problems
    assert (problem.file, problem.number, problem.position) == (str(path), number, position)
    assert words.replace("3", str(number)) in problem.reason


async def test_checkpoints_that_vanish_while_the_service_runs(place: Place) -> None:
    async with serving(place) as served:
        assert (await served.verify()).intact
        state, outside = place.checkpoint_files()
        last = _lines(outside)[-1]["number"]
        outside.write_bytes(b"".join(outside.read_bytes().splitlines(keepends=True)[:-1]))
        answer = await served.verify()
        (problem,) = answer.checkpoint_problems
        assert (problem.file, problem.number, answer.intact) == (str(outside), last, False)
        state.unlink()
        answer = await served.verify()
        assert [p.file for p in answer.checkpoint_problems] == [str(state), str(outside)] or [
            p.file for p in answer.checkpoint_problems
        ] == [str(outside), str(state)]
        assert any("the file is gone" in p.reason for p in answer.checkpoint_problems)


async def test_a_place_that_cannot_be_read_is_said_and_not_held_against_the_log(place: Place) -> None:
    async with serving(place) as served:
        place.outside.rename(place.folder / "away")
        answer = await served.verify()
        (place.folder / "away").rename(place.outside)
    assert answer.intact
    (unread,) = answer.unread_folders
    assert str(place.outside) in unread.file


async def test_a_missing_blob(place: Place) -> None:
    place.blob(BLOB).unlink()
    answer = await verdict_on(place)
    assert (answer.intact, answer.first_bad_position) == (False, 6)
    (problem,) = answer.blob_problems
    assert (problem.digest, problem.position) == (BLOB, 6)
    assert "missing" in problem.reason


async def test_a_changed_blob(place: Place) -> None:
    place.blob(BLOB).chmod(0o600)
    place.blob(BLOB).write_bytes(b"1")
    async with serving(place) as served:
        answer = await served.verify()
        assert (answer.intact, answer.first_bad_position) == (False, 6)
        assert (answer.blob_problems[0].digest, answer.blob_problems[0].position) == (BLOB, 6)
        assert "changed" in answer.reason
        # Named by event 41 as well: a range finds the first event in it.
        assert (await served.verify(from_position=20)).first_bad_position == 41
        assert (await served.verify(from_position=20, to_position=30)).intact
        assert (await served.verify(skip_blobs=True)).intact


async def labferry(place: Place, *arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(str(LABFERRY), "log", *arguments, "--config", str(place.config)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert b"Traceback" not in err, err.decode()
    return process.returncode or 0, out.decode(), err.decode()


async def test_the_command_line_says_it_too(place: Place) -> None:
    async with serving(place):
        status, out, _ = await labferry(place, "verify")
        assert status == 0
        assert out.startswith("intact: 42 events, ")
    tamper(place.database, "UPDATE events SET actor = 'nobody' WHERE position = 17")
    chain_anew(place.database)
    place.blob(BLOB).unlink()
    async with serving(place):
        status, _, err = await labferry(place, "verify")
        assert status == 1
        assert "21" in err and "Events after position 11 and up to 21 were replaced" in err
        assert f"the blob {BLOB} is missing" in err
        status, out, _ = await labferry(place, "verify", "-o", "json")
        assert (status, json.loads(out)["intact"]) == (1, False)
