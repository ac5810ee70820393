"""A checkpoint's form: it comes back as it was, and no changed field goes unnoticed."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from libs.event_log.checkpoint import (
    Checkpoint,
    CheckpointFormatError,
    checkpoint_time,
    from_line,
    sign,
    signed_bytes,
    to_line,
)

KEY = Ed25519PrivateKey.generate()
TEXT = st.text(st.characters(codec="utf-8"), max_size=50)
NUMBERS = st.integers(-(1 << 63), (1 << 63) - 1)
CHECKPOINTS = st.builds(
    Checkpoint, store_id=TEXT, position=NUMBERS, hash=st.binary(max_size=40), time=TEXT, series=TEXT, number=NUMBERS
)
A_CHECKPOINT = Checkpoint("store", 7, bytes(range(32)), "2026-11-20T12:00:00.000000Z", "series", 3)


@given(CHECKPOINTS)
def test_a_line_comes_back_as_it_was(checkpoint: Checkpoint) -> None:
    signed = sign(checkpoint, KEY)
    line = to_line(signed)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert from_line(line) == signed
    assert signed.is_genuine()


@given(CHECKPOINTS, CHECKPOINTS)
def test_different_checkpoints_have_different_bytes(one: Checkpoint, other: Checkpoint) -> None:
    assert (signed_bytes(one) == signed_bytes(other)) == (one == other)


@pytest.mark.parametrize(
    "change",
    [{"store_id": "x"}, {"position": 8}, {"hash": bytes(32)}, {"time": "x"}, {"series": "x"}, {"number": 4}],
)
def test_a_changed_field(change: dict[str, Any]) -> None:
    signed = sign(A_CHECKPOINT, KEY)
    changed = dataclasses.replace(signed, checkpoint=dataclasses.replace(A_CHECKPOINT, **change))
    assert not changed.is_genuine()


@pytest.mark.parametrize("field", ["public_key", "signature"])
def test_a_changed_signature_or_key(field: str) -> None:
    signed = sign(A_CHECKPOINT, KEY)
    for other in (bytes(len(getattr(signed, field))), b"", b"short"):
        assert not dataclasses.replace(signed, **{field: other}).is_genuine()


@pytest.mark.parametrize(
    "change",
    [
        {"layout": "labferry.checkpoint.v2"},
        {"position": 1 << 63},
        {"position": "7"},
        {"hash": "zz"},
        {"more": 1},
        {"store_id": "\ud800"},
    ],
)
def test_what_is_no_checkpoint(change: dict[str, Any]) -> None:
    fields = json.loads(to_line(sign(A_CHECKPOINT, KEY)))
    with pytest.raises(CheckpointFormatError):
        from_line(json.dumps({**fields, **change}).encode())


@pytest.mark.parametrize("line", [b"", b"\xff\n", b"[]", b"{}", b'{"layout":'])
def test_what_is_no_json_of_ours(line: bytes) -> None:
    with pytest.raises(CheckpointFormatError):
        from_line(line)


def test_its_time() -> None:
    assert checkpoint_time(1_800_000_000_123_456_789) == "2027-01-15T08:00:00.123456Z"
    assert checkpoint_time(0) == "1970-01-01T00:00:00.000000Z"
