"""Calls that were refused for want of an identity or a role: noted for the log, and too many of them turned away."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

MOST_A_MINUTE = 60
"""Calls without a known identity from one host: so many get a reason of their own, the others one to wait."""

_WINDOW_SECONDS = 60.0
_MOST_HOSTS = 1000


@dataclass(frozen=True, slots=True)
class Refusal:
    """`actor` is empty when nobody knows who called. `host`: "ipv4:10.0.0.7", or "unix"."""

    method: str
    actor: str
    host: str
    reason: str


NoteRefusal = Callable[[Refusal], None]


class RefusalLimit:
    """Counts strangers' calls by host. A caller with a known identity is never turned away: nobody can lock a lab out
    by calling with wrong tokens. Pure but for the clock it is given (seconds, monotonic)."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._windows: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def exceeded(self, host: str) -> float:
        """Counts one more. Seconds until the host's calls are looked at again; 0: this one still is."""
        now = self._clock()
        began, count = self._windows.get(host, (now, 0))
        if now - began >= _WINDOW_SECONDS:
            began, count = now, 0
        self._windows[host] = (began, count + 1)
        self._windows.move_to_end(host)
        if len(self._windows) > _MOST_HOSTS:
            self._windows.popitem(last=False)
        return 0.0 if count < MOST_A_MINUTE else began + _WINDOW_SECONDS - now


def host_of(peer: str) -> str:
    """The host of a gRPC peer, without its port."""
    return "unix" if peer.startswith("unix") else peer.rpartition(":")[0]
