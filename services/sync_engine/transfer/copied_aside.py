"""What stays at its name although it was set aside: a storage that can't rename keeps a copy of it, and is asked for no
deletion, which may come late. What is sent next replaces it.
"""

from __future__ import annotations


class CopiedAside:
    """Of one destination, by run's folder, job and attempt. Each attempt belongs to one thread at a time."""

    def __init__(self) -> None:
        self._paths: dict[tuple[bytes, str, int], set[bytes]] = {}

    def of(self, target: bytes, job_id: str, attempt: int) -> set[bytes]:
        """Paths in the run's folder, to be added to and taken from."""
        return self._paths.setdefault((target, job_id, attempt), set())

    def forget(self, job_id: str, *, keep_attempt: int | None) -> None:
        """The job's dead attempts."""
        for key in list(self._paths):
            if key[1] == job_id and key[2] != keep_attempt:
                self._paths.pop(key, None)
