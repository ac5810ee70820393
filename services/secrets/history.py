"""What the log tells of each secret: its versions, and by when the present one is to be replaced. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from google.protobuf.timestamp_pb2 import Timestamp

from labferry.events.v1 import secret_events_pb2 as facts
from libs.event_log.event import RecordedEvent
from services.secrets.events import EVENT_TYPES, ROTATE_BY_SET, SECRET_CHANGE_FAILED, SECRET_DELETED, SECRET_SET
from services.secrets.secret_id import SecretId

TOLD_BY = (SECRET_SET, SECRET_DELETED, SECRET_CHANGE_FAILED, ROTATE_BY_SET)
"""The types of the events that histories are made of."""


@dataclass(frozen=True, slots=True)
class Version:
    """One value that somebody set through this service; not the value. Times are nanoseconds since the epoch.

    `backend`: where it was put; empty: an earlier release didn't say. `store_version`: the store's own number, 0 where
    it doesn't count.
    """

    number: int
    set_ns: int
    set_by: str
    rotate_by_ns: int | None
    backend: str = ""
    store_version: int = 0


@dataclass(frozen=True, slots=True)
class SecretHistory:
    """`versions` from the first on. `present`: the last of them is kept, as far as this service did it.

    `rotate_by_ns`: by when what is kept is to be replaced, whoever set it; nanoseconds since the epoch.
    """

    versions: tuple[Version, ...] = ()
    present: bool = False
    rotate_by_ns: int | None = None

    @property
    def present_version(self) -> Version | None:
        """None when there is none, or another program set it."""
        return self.versions[-1] if self.present else None

    def is_overdue(self, now_ns: int) -> bool:
        return self.rotate_by_ns is not None and self.rotate_by_ns <= now_ns

    def with_version(
        self, set_ns: int, set_by: str, rotate_by_ns: int | None, backend: str = "", store_version: int = 0
    ) -> SecretHistory:
        version = Version(len(self.versions) + 1, set_ns, set_by, rotate_by_ns, backend, store_version)
        return SecretHistory((*self.versions, version), present=True, rotate_by_ns=rotate_by_ns)

    def deleted(self) -> SecretHistory:
        return SecretHistory(self.versions)

    def to_be_replaced(self, rotate_by_ns: int | None) -> SecretHistory:
        versions = self.versions
        if self.present:
            versions = (*versions[:-1], replace(versions[-1], rotate_by_ns=rotate_by_ns))
        return replace(self, versions=versions, rotate_by_ns=rotate_by_ns)


class HistoriesSoFar:
    """The histories after a number of events. A fold."""

    def __init__(self) -> None:
        self._histories: dict[SecretId, SecretHistory] = {}
        self._before: dict[SecretId, SecretHistory] = {}

    def apply(self, event: RecordedEvent) -> None:
        match EVENT_TYPES.decode(event):
            case facts.SecretSet() as fact:
                secret, rotate_by = SecretId(fact.service, fact.username), _nanoseconds(fact.rotate_by, fact)
                self._change(
                    secret,
                    self.of(secret).with_version(
                        event.recorded_ns, event.actor, rotate_by, fact.backend, fact.store_version
                    ),
                )
            case facts.SecretDeleted() as fact:
                secret = SecretId(fact.service, fact.username)
                self._change(secret, self.of(secret).deleted())
            case facts.SecretChangeFailed() as fact:
                secret = SecretId(fact.service, fact.username)
                self._change(secret, self._before.get(secret, SecretHistory()))
            case facts.SecretRotateBySet() as fact:
                secret = SecretId(fact.service, fact.username)
                self._change(secret, self.of(secret).to_be_replaced(_nanoseconds(fact.rotate_by, fact)))

    def of(self, secret: SecretId) -> SecretHistory:
        return self._histories.get(secret, SecretHistory())

    def present(self, service: str) -> Mapping[str, SecretHistory]:
        """By username, those whose value is kept, as far as this service did it."""
        return {s.username: h for s, h in self._histories.items() if s.service == service and h.present}

    def with_rotation_date(self) -> Iterable[tuple[SecretId, int]]:
        """Each secret that has a date, and the date."""
        return [(s, h.rotate_by_ns) for s, h in self._histories.items() if h.rotate_by_ns is not None]

    def _change(self, secret: SecretId, after: SecretHistory) -> None:
        self._before[secret] = self.of(secret)
        self._histories[secret] = after


def _nanoseconds(moment: Timestamp, fact: facts.SecretSet | facts.SecretRotateBySet) -> int | None:
    return moment.ToNanoseconds() if fact.HasField("rotate_by") else None
