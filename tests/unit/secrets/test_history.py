from __future__ import annotations

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from labferry.events.v1 import secret_events_pb2 as facts
from libs.event_log.event import RecordedEvent
from services.secrets.events import EVENT_TYPES
from services.secrets.history import HistoriesSoFar, SecretHistory, Version
from services.secrets.secret_id import SecretId

A, B = SecretId("x", "a"), SecretId("x", "b")


def after(*payloads: Message) -> HistoriesSoFar:
    """The events happen at 1, 2, 3 … ns."""
    histories = HistoriesSoFar()
    for at, payload in enumerate(payloads, start=1):
        new = EVENT_TYPES.new_event(payload, actor=f"actor {at}")
        histories.apply(
            RecordedEvent(
                position=at,
                stream="s",
                revision=at,
                type=new.type,
                event_id=str(at),
                recorded_ns=at,
                actor=new.actor,
                payload=new.payload,
                hash=b"",
            )
        )
    return histories


def set_(secret: SecretId, rotate_by_ns: int | None = None) -> Message:
    rotate_by = None if rotate_by_ns is None else Timestamp(nanos=rotate_by_ns)
    return facts.SecretSet(service=secret.service, username=secret.username, rotate_by=rotate_by)


def deleted(secret: SecretId) -> Message:
    return facts.SecretDeleted(service=secret.service, username=secret.username)


def failed(secret: SecretId) -> Message:
    return facts.SecretChangeFailed(service=secret.service, username=secret.username)


def dated(secret: SecretId, rotate_by_ns: int | None) -> Message:
    rotate_by = None if rotate_by_ns is None else Timestamp(nanos=rotate_by_ns)
    return facts.SecretRotateBySet(service=secret.service, username=secret.username, rotate_by=rotate_by)


def set_ns(histories: HistoriesSoFar, service: str = "x") -> dict[str, int]:
    present = histories.present(service)
    return {name: history.present_version.set_ns for name, history in present.items() if history.present_version}


def test_the_last_change_counts() -> None:
    assert set_ns(after(set_(A), set_(B), set_(A))) == {"a": 3, "b": 2}
    assert set_ns(after(set_(A), deleted(A))) == {}
    assert set_ns(after(set_(A), deleted(A), set_(A))) == {"a": 3}
    assert set_ns(after(set_(SecretId("y", "a")))) == {}


def test_a_change_that_failed_did_not_happen() -> None:
    assert set_ns(after(set_(A), failed(A))) == {}
    assert set_ns(after(set_(A), set_(A), failed(A))) == {"a": 1}
    assert set_ns(after(set_(A), deleted(A), failed(A))) == {"a": 1}


def test_versions_are_counted_on_through_deletions_and_not_through_failures() -> None:
    history = after(set_(A), set_(A, 9), failed(A), deleted(A), set_(A, 7)).of(A)
    assert history.versions == (Version(1, 1, "actor 1", None), Version(2, 5, "actor 5", 7))
    assert history.present_version == history.versions[-1]
    assert after(set_(A), deleted(A)).of(A).versions == (Version(1, 1, "actor 1", None),)
    assert after().of(A) == SecretHistory()


def test_a_date_belongs_to_the_value_that_it_was_given_to() -> None:
    assert list(after(set_(A, 9), set_(B)).with_rotation_date()) == [(A, 9)]
    assert list(after(set_(A, 9), set_(A)).with_rotation_date()) == []
    assert list(after(set_(A, 9), set_(A), failed(A)).with_rotation_date()) == [(A, 9)]
    assert list(after(set_(A, 9), deleted(A)).with_rotation_date()) == []
    assert list(after(set_(A), dated(A, 8)).with_rotation_date()) == [(A, 8)]
    assert list(after(set_(A, 9), dated(A, None)).with_rotation_date()) == []
    assert after(set_(A), dated(A, 8), set_(A)).of(A).versions[0].rotate_by_ns == 8
    assert list(after(dated(A, 8)).with_rotation_date()) == [(A, 8)], "another program's value may have a date"


def test_it_is_overdue_from_that_moment_on() -> None:
    history = after(set_(A, 9)).of(A)
    assert [history.is_overdue(now) for now in (8, 9, 10)] == [False, True, True]
    assert not after(set_(A)).of(A).is_overdue(10)
