"""What a caller learns of the event log's errors."""

from __future__ import annotations

import grpc

from labferry.events.v1 import error_reason_pb2 as reasons
from libs.event_log.blob_store import BlobError
from libs.event_log.event import UnknownEventTypeError
from libs.event_log.projection import ProjectionStoppedError
from libs.event_log.projection_failure import ReadModelsFullError
from libs.event_log.store import (
    MAX_PAYLOAD_BYTES,
    AppendOutcomeUnknownError,
    EventStoreError,
    EventTooLargeError,
    ForeignCursorError,
    InvalidEventError,
    LeaseLostError,
    LogDamagedError,
    LogDiskFullError,
    PositionBeyondHeadError,
    PositionTooOldError,
    RequestIdReusedError,
    RevisionConflictError,
)
from libs.service_kit.errors import (
    DataLossError,
    FieldViolation,
    InvalidRequestError,
    LabferryError,
    Reason,
    RequestIdConflictError,
    ResourceExhaustedError,
    RevisionAbortedError,
    UnavailableError,
)

EVENTS_DOMAIN = "events.labferry"
_LOG = {"dependency": "event_log"}


def events_reason(value: reasons.ErrorReason.ValueType) -> Reason:
    return Reason(EVENTS_DOMAIN, reasons.ErrorReason.Name(value).removeprefix("ERROR_REASON_"))


class ForeignCursorRefusal(LabferryError):
    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = events_reason(reasons.ERROR_REASON_FOREIGN_CURSOR)


class PositionBeyondHeadRefusal(LabferryError):
    code = grpc.StatusCode.OUT_OF_RANGE
    reason = events_reason(reasons.ERROR_REASON_POSITION_BEYOND_HEAD)


class PositionTooOldRefusal(LabferryError):
    code = grpc.StatusCode.OUT_OF_RANGE
    reason = events_reason(reasons.ERROR_REASON_POSITION_TOO_OLD)


class EventTooLargeRefusal(LabferryError):
    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = events_reason(reasons.ERROR_REASON_EVENT_TOO_LARGE)


class ProjectionStoppedRefusal(LabferryError):
    code = grpc.StatusCode.INTERNAL
    reason = events_reason(reasons.ERROR_REASON_PROJECTION_STOPPED)


class UnknownEventTypeRefusal(LabferryError):
    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = events_reason(reasons.ERROR_REASON_UNKNOWN_EVENT_TYPE)


def as_labferry_error(error: Exception) -> LabferryError | None:
    """The error that a caller gets to see; None for what isn't the event log's."""
    if isinstance(error, BlobError):
        return DataLossError(str(error), metadata={"blob": error.digest})
    if isinstance(error, UnknownEventTypeError):
        return UnknownEventTypeRefusal(str(error), metadata={"type": error.type_name})
    return _of_store(error) if isinstance(error, EventStoreError) else None


def _of_store(error: EventStoreError) -> LabferryError:
    message = str(error)
    match error:
        case RevisionConflictError():
            return RevisionAbortedError(message, metadata={"stream": error.stream})
        case RequestIdReusedError():
            return RequestIdConflictError(message, metadata={"request_id": error.request_id})
        case EventTooLargeError():
            limits = {"type": error.type_name, "size": str(error.size), "limit": str(MAX_PAYLOAD_BYTES)}
            return EventTooLargeRefusal(message, metadata=limits)
        case InvalidEventError():
            return InvalidRequestError(FieldViolation(error.field, error.description))
        case ReadModelsFullError():
            return ResourceExhaustedError(
                "the disk of the read models is full; a repeat with the same request_id is safe"
            )
        case LogDiskFullError():
            return ResourceExhaustedError("the event log's disk is full; nothing was done")
        case LogDamagedError():
            return DataLossError(message, metadata={"position": str(error.position)})
        case ForeignCursorError():
            stores = {"store_id": error.store_id, "cursor_store_id": error.cursor_store_id}
            return ForeignCursorRefusal(message, metadata=stores)
        case PositionBeyondHeadError():
            positions = {"position": str(error.position), "head_position": str(error.head)}
            return PositionBeyondHeadRefusal(message, metadata=positions)
        case PositionTooOldError():
            positions = {"position": str(error.position), "oldest_position": str(error.oldest)}
            return PositionTooOldRefusal(message, metadata=positions)
        case ProjectionStoppedError():
            where = {"projection": error.failure.projection, "position": str(error.failure.position)}
            # The detail may hold anything; the service's own log has it.
            return ProjectionStoppedRefusal("a read model stopped; RebuildProjections may repair it", metadata=where)
        case LeaseLostError():
            # Whoever asks again reaches, or finds, the replica that has the work now.
            return UnavailableError("another replica does this work now; nothing was done", metadata=_LOG)
        case AppendOutcomeUnknownError():
            return UnavailableError(
                "the event log went away before it answered; a repeat with the same request_id is safe", metadata=_LOG
            )
    return UnavailableError("the event log is not available", metadata=_LOG)
