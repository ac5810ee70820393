from __future__ import annotations

from google.protobuf.message import Message

from labferry.events.v1 import secret_events_pb2 as facts
from libs.event_log.event import RecordedEvent
from services.secrets.events import EVENT_TYPES
from services.secrets.names import KnownName, NamesSoFar, merge_names
from services.secrets.secret_id import SecretId


def after(*payloads: Message) -> dict[str, int]:
    names = NamesSoFar()
    for at, payload in enumerate(payloads, start=1):
        new = EVENT_TYPES.new_event(payload, actor="a")
        names.apply(
            RecordedEvent(
                position=at,
                stream="s",
                revision=at,
                type=new.type,
                event_id=str(at),
                recorded_ns=at,
                actor="a",
                payload=new.payload,
                hash=b"",
            )
        )
    return dict(names.of_service("x"))


def set_(username: str) -> Message:
    return facts.SecretSet(service="x", username=username)


def deleted(username: str) -> Message:
    return facts.SecretDeleted(service="x", username=username)


def failed(username: str) -> Message:
    return facts.SecretChangeFailed(service="x", username=username)


def test_the_last_change_counts() -> None:
    assert after(set_("a"), set_("b"), set_("a")) == {"a": 3, "b": 2}
    assert after(set_("a"), deleted("a")) == {}
    assert after(set_("a"), deleted("a"), set_("a")) == {"a": 3}
    assert after(facts.SecretSet(service="y", username="a")) == {}


def test_a_change_that_failed_did_not_happen() -> None:
    assert after(set_("a"), failed("a")) == {}
    assert after(set_("a"), set_("a"), failed("a")) == {"a": 1}
    assert after(set_("a"), deleted("a"), failed("a")) == {"a": 1}


def test_log_and_file_are_merged_in_order() -> None:
    assert merge_names("x", {"b": 2}, ["c", "b", "a"]) == [
        KnownName(SecretId("x", "a"), None),
        KnownName(SecretId("x", "b"), 2),
        KnownName(SecretId("x", "c"), None),
    ]
