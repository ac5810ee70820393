"""How long to wait after wrong passphrases: the more there were, the longer, and a restart forgets none. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from labferry.events.v1 import secret_events_pb2 as facts
from libs.event_log.event import RecordedEvent
from services.secrets.events import EVENT_TYPES

FREE_ATTEMPTS = 3
"""People mistype."""

_LONGEST = timedelta(minutes=5)
_MOST_DOUBLINGS = 20


class PassphraseAttempts:
    """The wrong attempts since the last right one."""

    def __init__(self) -> None:
        self._wrong = 0
        self._last = datetime.min.replace(tzinfo=UTC)

    def wrong(self, at: datetime) -> None:
        self._wrong += 1
        self._last = at

    def right(self) -> None:
        self._wrong = 0

    def wait(self, now: datetime) -> timedelta:
        """How long until the next attempt is looked at; zero: at once. Never more than five minutes, whatever the clock
        does."""
        if self._wrong < FREE_ATTEMPTS:
            return timedelta(0)
        pause = min(timedelta(seconds=1 << min(self._wrong - FREE_ATTEMPTS, _MOST_DOUBLINGS)), _LONGEST)
        return max(timedelta(0), min(self._last + pause - now, pause))

    def apply(self, event: RecordedEvent) -> None:
        """Folds one event of the store's stream."""
        match EVENT_TYPES.decode(event):
            case facts.SecretUnsealRefused():
                self.wrong(datetime.fromtimestamp(event.recorded_ns / 1e9, tz=UTC))
            case facts.SecretStoreUnsealed() | facts.SecretPassphraseChanged() | facts.SecretStoreInitialized():
                self.right()
