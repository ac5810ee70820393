"""Checks of requests, in one place: whatever is wrong whatever the state. All wrong fields are named at once."""

from __future__ import annotations

import hashlib
import re
import uuid
from datetime import UTC, datetime

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from labferry.sync.v1 import run_pb2
from libs.event_log.store import RequestKey
from libs.service_kit.call import current_correlation_id, current_on_behalf_of
from libs.service_kit.errors import FieldViolation, InvalidRequestError
from libs.service_kit.identity import current_caller
from services.sync_engine.engine_log import Cause

MAX_PAGE = 1000
DEFAULT_PAGE = 100
_MAX_TEXT = 2000
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_NAME = 255


class Fields:
    """Collects what is wrong with a request; `done` raises it all."""

    def __init__(self) -> None:
        self._violations: list[FieldViolation] = []

    def wrong(self, field: str, description: str) -> None:
        self._violations.append(FieldViolation(field, description))

    def done(self) -> None:
        """InvalidRequestError when anything was wrong."""
        if self._violations:
            raise InvalidRequestError(*self._violations)

    def run(self, value: str, field: str = "run") -> None:
        if not value:
            self.wrong(field, "is required: the run's path relative to its equipment's local_root")
        elif len(value.encode()) > 4096:
            self.wrong(field, "is longer than 4096 bytes")

    def equipment(self, value: str) -> None:
        if not value:
            self.wrong("equipment_id", "is required")
        elif len(value) > _MAX_NAME:
            self.wrong("equipment_id", f"is longer than {_MAX_NAME} characters")

    def sha256(self, value: str, field: str, *, required: bool) -> None:
        if (required or value) and not _SHA256.fullmatch(value):
            self.wrong(field, "must be a SHA-256: 64 lower-case hexadecimal digits")

    def path_in_run(self, value: bytes) -> None:
        parts = value.split(b"/")
        if not value:
            self.wrong("path", "is required: the file's path relative to the run")
        elif len(value) > 4096 or b"\0" in value or any(p in (b"", b".", b"..") for p in parts):
            self.wrong("path", "must be a path relative to the run, with / between its names")

    def reason(self, value: str, *, required: bool) -> None:
        if required and not value.strip():
            self.wrong("reason", "is required: the log keeps why")
        elif len(value) > _MAX_TEXT:
            self.wrong("reason", f"is longer than {_MAX_TEXT} characters")

    def operator(self, value: str) -> None:
        if not value.strip():
            self.wrong("operator", "is required: who decides")
        elif len(value) > _MAX_NAME:
            self.wrong("operator", f"is longer than {_MAX_NAME} characters")

    def request_id(self, value: str) -> None:
        if len(value) > 128 or not value.isprintable():
            self.wrong("request_id", "must be 1 to 128 printable characters, or empty")

    def uuid(self, value: str, field: str) -> None:
        try:
            uuid.UUID(value)
        except ValueError:
            self.wrong(field, f"{value!r} is not a UUID")

    def enum(self, value: int, known: object | None, field: str) -> None:
        if known is None:
            self.wrong(field, "must be one of the named values" if value == 0 else f"{value} is not a known value")

    def page_size(self, value: int) -> int:
        if not 0 <= value <= MAX_PAGE:
            self.wrong("page_size", f"must be 0 to {MAX_PAGE}")
        return value or DEFAULT_PAGE

    def future(self, value: Timestamp, field: str, now: datetime) -> datetime | None:
        moment = self.time(value, field)
        if moment is not None and moment <= now:
            self.wrong(field, "must lie in the future")
        return moment

    def time(self, value: Timestamp, field: str) -> datetime | None:
        try:
            return value.ToDatetime(tzinfo=UTC)
        except (ValueError, OverflowError):
            self.wrong(field, "is not a valid time")
            return None

    def as_of(self, value: run_pb2.AsOf) -> None:
        if value.HasField("time"):
            self.time(value.time, "as_of.time")
        elif value.position < 0:
            self.wrong("as_of.position", "must be 0 or more")


def request_key(method: str, request_id: str, request: Message) -> RequestKey | None:
    """Makes a write safe to repeat; None when the caller asked for no such promise."""
    if not request_id:
        return None
    digest = hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
    return RequestKey(current_caller().actor, method, request_id, digest)


def cause(reason: str = "") -> Cause:
    """Who asks, by the authenticated identity, and why."""
    return Cause(current_caller().actor, reason, current_correlation_id(), current_on_behalf_of())
