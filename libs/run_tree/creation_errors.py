"""What can go wrong with a `creation.json`; each message is one plain sentence."""

from __future__ import annotations

from pathlib import Path


class CreationError(Exception):
    """Base of everything below. `path` is the file, where one is concerned."""

    code = "creation_error"

    def __init__(self, message: str, path: Path | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.path = path


class CreationMissingError(CreationError):
    """There is no such file."""

    code = "creation_missing"


class CreationUnreadableError(CreationError):
    """It exists, but can't be read or decoded, or holds a value that this version doesn't know."""

    code = "creation_unreadable"


class SchemaMajorMismatchError(CreationError):
    """Its schema version is missing or of another major; nothing of it was used."""

    code = "schema_major_mismatch"

    def __init__(self, found: str | None, path: Path | None = None) -> None:
        self.field = "schema_version"
        self.expected_major = 1
        self.found = found
        what = "is missing" if found is None else f"is {found}"
        super().__init__(f"creation.json's {self.field} {what}; major version {self.expected_major} is needed.", path)


class CreationLockedError(CreationError):
    """Another program held the lock for the whole waiting time."""

    code = "creation_locked"


class CreationExistsError(CreationError):
    """A first file was to be written where one exists."""

    code = "creation_exists"


class CreationNotWritableError(CreationError):
    """The system refused the write (no room, read-only, no permission); the old file is untouched."""

    code = "creation_not_writable"
