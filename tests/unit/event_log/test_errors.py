"""Each error of the event log has its place in the API's errors."""

from __future__ import annotations

import grpc
import pytest

from labferry.events.v1 import error_reason_pb2 as reasons
from libs.event_log import errors
from libs.event_log.blob_store import BlobMissingError
from libs.event_log.checkpoint_key import CheckpointKeyError
from libs.event_log.errors import as_labferry_error
from libs.event_log.event import UnknownEventTypeError
from libs.event_log.projection import ProjectionFailure, ProjectionStoppedError
from libs.event_log.projection_failure import ReadModelsFullError
from libs.event_log.store import (
    AppendOutcomeUnknownError,
    EventStoreError,
    EventTooLargeError,
    ForeignCursorError,
    InvalidEventError,
    LeaseFence,
    LeaseLostError,
    LogClosedError,
    LogDamagedError,
    LogDiskFullError,
    LogInUseError,
    LogLocationError,
    LogUnavailableError,
    PositionBeyondHeadError,
    PositionTooOldError,
    RequestIdReusedError,
    RevisionConflictError,
)
from libs.service_kit.errors import LabferryError

Code = grpc.StatusCode
CASES: list[tuple[Exception, grpc.StatusCode, str, dict[str, str]]] = [
    (RevisionConflictError("s", 1, 2), Code.ABORTED, "REVISION_CONFLICT", {"stream": "s"}),
    (RequestIdReusedError("r"), Code.ALREADY_EXISTS, "REQUEST_ID_REUSED", {"request_id": "r"}),
    (
        EventTooLargeError("t", 2_000_000),
        Code.INVALID_ARGUMENT,
        "EVENT_TOO_LARGE",
        {"type": "t", "size": "2000000", "limit": "1048576"},
    ),
    (InvalidEventError("reason", "holds a NUL character"), Code.INVALID_ARGUMENT, "INVALID_FIELD", {}),
    (ReadModelsFullError(), Code.RESOURCE_EXHAUSTED, "LOG_DISK_FULL", {}),
    (LogDiskFullError(), Code.RESOURCE_EXHAUSTED, "LOG_DISK_FULL", {}),
    (LogDamagedError(7, "x"), Code.DATA_LOSS, "LOG_DAMAGED", {"position": "7"}),
    (LogUnavailableError("x"), Code.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE", {"dependency": "event_log"}),
    (LogClosedError("x"), Code.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE", {"dependency": "event_log"}),
    (LeaseLostError(LeaseFence("jobs", 3)), Code.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE", {"dependency": "event_log"}),
    (AppendOutcomeUnknownError("x"), Code.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE", {"dependency": "event_log"}),
    (LogInUseError("x"), Code.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE", {"dependency": "event_log"}),
    (LogLocationError("x"), Code.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE", {"dependency": "event_log"}),
    (CheckpointKeyError("x"), Code.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE", {"dependency": "event_log"}),
    (
        ForeignCursorError("a", "b"),
        Code.FAILED_PRECONDITION,
        "FOREIGN_CURSOR",
        {"store_id": "a", "cursor_store_id": "b"},
    ),
    (PositionBeyondHeadError(9, 5), Code.OUT_OF_RANGE, "POSITION_BEYOND_HEAD", {"position": "9", "head_position": "5"}),
    (PositionTooOldError(1, 5), Code.OUT_OF_RANGE, "POSITION_TOO_OLD", {"position": "1", "oldest_position": "5"}),
    (
        ProjectionStoppedError(ProjectionFailure("jobs", 4, "t", "a secret")),
        Code.INTERNAL,
        "PROJECTION_STOPPED",
        {"projection": "jobs", "position": "4"},
    ),
    (UnknownEventTypeError("t.v9"), Code.FAILED_PRECONDITION, "UNKNOWN_EVENT_TYPE", {"type": "t.v9"}),
    (BlobMissingError("ab"), Code.DATA_LOSS, "LOG_DAMAGED", {"blob": "ab"}),
]


@pytest.mark.parametrize(("error", "code", "reason", "metadata"), CASES, ids=lambda value: type(value).__name__)
def test_each_error(error: Exception, code: grpc.StatusCode, reason: str, metadata: dict[str, str]) -> None:
    mapped = as_labferry_error(error)
    assert mapped is not None
    assert (mapped.code, mapped.reason.name, dict(mapped.metadata)) == (code, reason, metadata)
    assert "a secret" not in mapped.message


def test_every_error_class_is_covered() -> None:
    def concrete(base: type[Exception]) -> set[type[Exception]]:
        return {sub for child in base.__subclasses__() for sub in {child, *concrete(child)}}

    assert concrete(EventStoreError) <= {type(error) for error, *_ in CASES}


def test_other_errors_are_not_claimed() -> None:
    assert as_labferry_error(ValueError("x")) is None


def test_every_reason_of_this_api_has_a_refusal() -> None:
    mapped = {
        value.reason.name
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, LabferryError) and hasattr(value, "reason")
    }
    names = {name.removeprefix("ERROR_REASON_") for name, _ in reasons.ErrorReason.items()}
    assert names - mapped == {"UNSPECIFIED"}
