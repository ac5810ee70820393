"""Domain errors and the one place where they become gRPC status with details (SPEC §9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from labferry.service.v1 import error_reason_pb2 as service_reasons

GENERAL_DOMAIN = "labferry"


@dataclass(frozen=True, slots=True)
class Reason:
    """A documented value of one API's `ErrorReason` enum: domain and short name, as sent in `google.rpc.ErrorInfo`."""

    domain: str
    name: str


def general_reason(value: service_reasons.ErrorReason.ValueType) -> Reason:
    return Reason(GENERAL_DOMAIN, service_reasons.ErrorReason.Name(value).removeprefix("ERROR_REASON_"))


class LabferryError(Exception):
    """Base of the errors that callers get to see.

    The message is one plain sentence that holds no secret. `metadata` holds the keys that the reason documents.
    """

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN
    reason: Reason

    def __init__(self, message: str, *, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.metadata: Mapping[str, str] = metadata or {}

    def details(self) -> Sequence[error_details_pb2.BadRequest | error_details_pb2.RetryInfo]:
        """Details beside ErrorInfo."""
        return ()


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field of a request and what is wrong with it."""

    field: str
    description: str


def bad_request(violations: Sequence[FieldViolation]) -> error_details_pb2.BadRequest:
    """The detail that names wrong fields, as many as fit."""
    bad = error_details_pb2.BadRequest()
    for violation in violations:
        field, description = _cut(violation.field, _MOST_NAME_BYTES), _cut(violation.description, _MOST_VALUE_BYTES)
        bad.field_violations.add(field=field, description=description)
        if bad.ByteSize() > _MOST_DETAIL_BYTES:
            break
    return bad


class InvalidRequestError(LabferryError):
    """The request is wrong whatever the state; every wrong field is named."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = general_reason(service_reasons.ERROR_REASON_INVALID_FIELD)

    def __init__(self, *violations: FieldViolation) -> None:
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in violations))
        self.violations = violations

    def details(self) -> Sequence[error_details_pb2.BadRequest]:
        return (bad_request(self.violations),)


class UnauthenticatedError(LabferryError):
    code = grpc.StatusCode.UNAUTHENTICATED
    reason = general_reason(service_reasons.ERROR_REASON_IDENTITY_REQUIRED)


class PermissionDeniedError(LabferryError):
    code = grpc.StatusCode.PERMISSION_DENIED
    reason = general_reason(service_reasons.ERROR_REASON_ROLE_REQUIRED)


class UnavailableError(LabferryError):
    """A part that is needed does not answer. `retry_after` tells the caller when to try again."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = general_reason(service_reasons.ERROR_REASON_DEPENDENCY_UNAVAILABLE)

    def __init__(
        self, message: str, *, metadata: Mapping[str, str] | None = None, retry_after: timedelta = timedelta(seconds=5)
    ) -> None:
        super().__init__(message, metadata=metadata)
        self.retry_after = retry_after

    def details(self) -> Sequence[error_details_pb2.RetryInfo]:
        return (retry_info(self.retry_after),)


def retry_info(after: timedelta) -> error_details_pb2.RetryInfo:
    """When to try again, as a detail of a status."""
    delay = duration_pb2.Duration()
    delay.FromTimedelta(after)
    return error_details_pb2.RetryInfo(retry_delay=delay)


class RequestIdConflictError(LabferryError):
    code = grpc.StatusCode.ALREADY_EXISTS
    reason = general_reason(service_reasons.ERROR_REASON_REQUEST_ID_REUSED)


class RevisionAbortedError(LabferryError):
    code = grpc.StatusCode.ABORTED
    reason = general_reason(service_reasons.ERROR_REASON_REVISION_CONFLICT)


class ResourceExhaustedError(LabferryError):
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = general_reason(service_reasons.ERROR_REASON_LOG_DISK_FULL)


class TooManyRefusalsError(LabferryError):
    """Too many calls of strangers from one host."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = general_reason(service_reasons.ERROR_REASON_TOO_MANY_REFUSALS)

    def __init__(self, retry_after: timedelta) -> None:
        super().__init__("too many calls without a known identity came from this host")
        self.retry_after = retry_after

    def details(self) -> Sequence[error_details_pb2.RetryInfo]:
        return (retry_info(self.retry_after),)


class DataLossError(LabferryError):
    code = grpc.StatusCode.DATA_LOSS
    reason = general_reason(service_reasons.ERROR_REASON_LOG_DAMAGED)


class DeadlineExceededError(LabferryError):
    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = general_reason(service_reasons.ERROR_REASON_DEADLINE_EXCEEDED)


class SubscriberTooSlowError(LabferryError):
    """The reader of a stream took nothing for too long. Raised in a streaming method at the `yield` of what waits."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = general_reason(service_reasons.ERROR_REASON_SUBSCRIBER_TOO_SLOW)


class InternalError(LabferryError):
    """What a caller sees of a defect: an id, under which the service's log holds the details."""

    code = grpc.StatusCode.INTERNAL
    reason = general_reason(service_reasons.ERROR_REASON_INTERNAL)

    def __init__(self, error_id: str) -> None:
        super().__init__(
            f"internal error {error_id}; the service's log has the details", metadata={"error_id": error_id}
        )


_MOST_MESSAGE_BYTES = 2000
_MOST_VALUE_BYTES = 500
_MOST_NAME_BYTES = 100
_MOST_DETAIL_BYTES = 1200


def _cut(text: str, most: int, escape: int = 1) -> str:
    """As much of a text as takes so many bytes on its way, where each byte beyond printable ASCII takes `escape`.

    A file name that is no UTF-8 may be quoted in it, as surrogates, which can't travel.
    """
    text, left = text.encode(errors="replace").decode(), most
    for index, character in enumerate(text):
        left -= 1 if " " <= character <= "~" else escape * len(character.encode())
        if left < 0:
            return text[: max(0, index - 1)] + "…"
    return text


def told(error: LabferryError) -> str:
    """The message as callers and the log get it: what a caller sent to be quoted may be long."""
    return _cut(error.message, _MOST_MESSAGE_BYTES, escape=3)


def _told_metadata(error: LabferryError) -> Mapping[str, str]:
    left, kept = _MOST_DETAIL_BYTES, {}
    for key, value in error.metadata.items():
        kept[key] = _cut(str(value), min(_MOST_VALUE_BYTES, left))
        left = max(0, left - len(kept[key].encode()))
    return kept


def to_status(error: LabferryError) -> grpc.Status:
    """The rich status of a domain error: ErrorInfo first, then its further details.

    It travels in trailing metadata, of which gRPC takes 8 KiB: beyond that the caller gets gRPC's own error instead.
    """
    info = error_details_pb2.ErrorInfo(
        reason=error.reason.name, domain=error.reason.domain, metadata=_told_metadata(error)
    )
    status = status_pb2.Status(code=code_pb2.Code.Value(error.code.name), message=told(error))
    for detail in (info, *error.details()):
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return rpc_status.to_status(status)
