"""The hash chain against an independent reading of its documented byte layout."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from libs.event_log.event import RecordedEvent
from libs.event_log.hash_chain import (
    FIRST_PREVIOUS_HASH,
    ChainCheck,
    canonical_bytes,
    event_hash,
    verify_chain,
)

STORE = "0b6f3c1e-5f0e-4b52-9d36-8f1f6f0e8a11"

texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20)
signed = st.integers(min_value=0, max_value=2**63 - 1)
contents = st.fixed_dictionaries(
    {
        "stream": texts,
        "revision": signed,
        "type": texts,
        "event_id": texts,
        "recorded_ns": signed,
        "actor": texts,
        "payload": st.binary(max_size=50),
        "may_ignore": st.booleans(),
        "on_behalf_of": texts,
        "reason": texts,
        "correlation_id": texts,
        "causation_id": texts,
    }
)


def independent_hash(store_id: str, previous: bytes, event: RecordedEvent) -> bytes:
    """Written from the docstring of hash_chain, with nothing but the standard library."""
    fields = [
        b"labferry.event.v1",
        store_id.encode("utf-8"),
        event.position.to_bytes(8, "big", signed=True),
        event.stream.encode("utf-8"),
        event.revision.to_bytes(8, "big", signed=True),
        event.type.encode("utf-8"),
        event.event_id.encode("utf-8"),
        event.recorded_ns.to_bytes(8, "big", signed=True),
        event.actor.encode("utf-8"),
        event.on_behalf_of.encode("utf-8"),
        event.reason.encode("utf-8"),
        event.correlation_id.encode("utf-8"),
        event.causation_id.encode("utf-8"),
        b"\x01" if event.may_ignore else b"\x00",
        event.payload,
    ]
    digest = hashlib.sha256(previous)
    for field in fields:
        digest.update(len(field).to_bytes(4, "big"))
        digest.update(field)
    return digest.digest()


def chained(described: Sequence[dict[str, object]]) -> list[RecordedEvent]:
    events: list[RecordedEvent] = []
    previous = FIRST_PREVIOUS_HASH
    for position, fields in enumerate(described, start=1):
        event = RecordedEvent(position=position, hash=b"", **fields)  # type: ignore[arg-type]
        previous = event_hash(STORE, previous, event)
        events.append(replace(event, hash=previous))
    return events


@given(contents, st.binary(min_size=32, max_size=32))
def test_the_layout_is_as_documented(fields: dict[str, object], previous: bytes) -> None:
    event = RecordedEvent(position=7, hash=b"", **fields)  # type: ignore[arg-type]
    assert event_hash(STORE, previous, event) == independent_hash(STORE, previous, event)


def test_a_known_hash() -> None:
    event = RecordedEvent(1, "s", 0, "t.v1", "id", 2, "me", b"\x00\xff", b"", True, "for", "why é", "corr", "cause")
    canonical = canonical_bytes(STORE, 1, "s", 0, "id", 2, event)
    assert canonical.startswith(b"\x00\x00\x00\x11labferry.event.v1\x00\x00\x00\x24")
    assert canonical.endswith(b"\x00\x00\x00\x01\x01\x00\x00\x00\x02\x00\xff")
    assert hashlib.sha256(FIRST_PREVIOUS_HASH + canonical).digest() == independent_hash(STORE, bytes(32), event)
    assert (
        event_hash(STORE, FIRST_PREVIOUS_HASH, event).hex()
        == "805de64a68659bc8fefce667bdd72bc63a184989e6e03d4477c985cf87dd684f"
    )


@given(st.lists(contents, min_size=1, max_size=8))
def test_an_intact_chain_verifies_in_any_pages(described: list[dict[str, object]]) -> None:
    events = chained(described)
    assert verify_chain(STORE, events) is None
    check = ChainCheck(STORE)
    for event in events:
        assert check.check([event]) is None
    assert (check.checked, check.hash) == (len(events), events[-1].hash)
    if len(events) > 2:
        assert verify_chain(STORE, events[2:], first_position=3, previous=events[1].hash) is None


@given(st.lists(contents, min_size=1, max_size=8), st.data())
def test_any_change_is_found_where_it_is(described: list[dict[str, object]], data: st.DataObject) -> None:
    events = chained(described)
    index = data.draw(st.integers(0, len(events) - 1))
    field = data.draw(st.sampled_from(sorted(described[0])))
    other = data.draw(contents.map(lambda fields: fields[field]))
    changed = replace(events[index], **{field: other})
    found = verify_chain(STORE, [*events[:index], changed, *events[index + 1 :]])
    if changed == events[index]:
        assert found is None
    else:
        assert found is not None and found.position == index + 1


@given(st.lists(contents, min_size=3, max_size=8), st.data())
def test_removed_and_swapped_events_are_found(described: list[dict[str, object]], data: st.DataObject) -> None:
    events = chained(described)
    index = data.draw(st.integers(0, len(events) - 2))
    removed = verify_chain(STORE, [*events[:index], *events[index + 1 :]])
    assert removed is not None and removed.position == index + 1
    swapped = [*events[:index], events[index + 1], events[index], *events[index + 2 :]]
    renumbered = [replace(event, position=number) for number, event in enumerate(swapped, start=1)]
    found = verify_chain(STORE, renumbered)
    assert found is not None and found.position == index + 1


@given(st.lists(contents, min_size=1, max_size=4))
def test_a_chain_belongs_to_its_store(described: list[dict[str, object]]) -> None:
    found = verify_chain("another store", chained(described))
    assert found is not None and found.position == 1


def test_fields_can_not_run_into_each_other() -> None:
    one = RecordedEvent(1, "ab", 0, "c", "id", 0, "me", b"", b"")
    other = RecordedEvent(1, "a", 0, "bc", "id", 0, "me", b"", b"")
    assert event_hash(STORE, bytes(32), one) != event_hash(STORE, bytes(32), other)


def test_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        event_hash(STORE, bytes(32), RecordedEvent(1, "\ud800", 0, "t", "id", 0, "me", b"", b""))
