"""Old payloads become new ones before anything sees them, and a way that isn't whole stops the start."""

from __future__ import annotations

import pytest
from google.protobuf.wrappers_pb2 import BytesValue, DoubleValue, Int64Value, StringValue
from hypothesis import given
from hypothesis import strategies as st

from libs.event_log.event import EventType, EventTypes, RecordedEvent, UnknownEventTypeError
from libs.event_log.upcasting import EventEvolutionError, Upcaster

V1 = EventType("test.measured.v1", StringValue)
V2 = EventType("test.measured.v2", Int64Value)
V3 = EventType("test.measured.v3", DoubleValue)
ALONE = EventType("test.noted.v1", BytesValue)


def number_of(text: StringValue) -> Int64Value:
    return Int64Value(value=int(text.value))


def half_of(number: Int64Value) -> DoubleValue:
    return DoubleValue(value=number.value / 2)


V1_TO_V2 = Upcaster(V1.name, V2.name, number_of)
V2_TO_V3 = Upcaster(V2.name, V3.name, half_of)


def recorded(type_name: str, payload: bytes, *, may_ignore: bool = False) -> RecordedEvent:
    return RecordedEvent(2, "s", 0, type_name, "id", 1, "tester", payload, bytes(32), may_ignore)


@given(st.integers(-(2**62), 2**62))
def test_every_version_reaches_its_reader_as_the_newest(number: int) -> None:
    types = EventTypes((V3, V1, ALONE, V2), (V2_TO_V3, V1_TO_V2))
    newest = DoubleValue(value=number / 2)
    for event_type, payload in ((V1, StringValue(value=str(number))), (V2, Int64Value(value=number)), (V3, newest)):
        stored = payload.SerializeToString()
        event = recorded(event_type.name, stored)
        assert types.decode(event) == newest
        assert event.payload == stored


def test_only_the_newest_version_is_written() -> None:
    types = EventTypes((V1, V2), (V1_TO_V2,))
    assert types.new_event(Int64Value(value=1), actor="tester").type == V2.name
    with pytest.raises(KeyError):
        types.new_event(StringValue(value="1"), actor="tester")
    assert types.names == (V1.name, V2.name)


@pytest.mark.parametrize(
    ("types", "upcasters", "said"),
    [
        ((V1, V2), (), "no upcaster leads from test.measured.v1 to test.measured.v2"),
        ((V1, V2, V3), (V1_TO_V2,), "no upcaster leads from test.measured.v2 to test.measured.v3"),
        ((V1, V2, V3), (V2_TO_V3,), "no upcaster leads from test.measured.v1 to test.measured.v2"),
        ((V1, V3), (), "no upcaster leads from test.measured.v1 to test.measured.v2"),
        ((V1,), (V1_TO_V2,), "test.measured.v2, which isn't registered"),
        ((V1, V2, V3), (V1_TO_V2, Upcaster(V1.name, V3.name, number_of)), "each leads to the next version"),
        ((V1, V2, ALONE), (Upcaster(V1.name, ALONE.name, number_of),), "each leads to the next version"),
        ((V1, V2), (V1_TO_V2, V1_TO_V2), "two upcasters lead from test.measured.v1"),
        ((EventType("test.measured", StringValue),), (), "doesn't end with its version"),
        ((EventType("test.measured.v0", StringValue),), (), "doesn't end with its version"),
    ],
)
def test_a_way_that_is_not_whole_stops_the_start(
    types: tuple[EventType, ...], upcasters: tuple[Upcaster, ...], said: str
) -> None:
    with pytest.raises(EventEvolutionError, match=said):
        EventTypes(types, upcasters)


def test_an_unknown_type_stops_a_reader_unless_it_may_be_ignored() -> None:
    types = EventTypes((V1,))
    assert types.decode(recorded("test.later.v1", b"\x01", may_ignore=True)) is None
    for name in ("test.later.v1", "test.measured.v2"):
        with pytest.raises(UnknownEventTypeError, match=name):
            types.decode(recorded(name, b"\x01"))
