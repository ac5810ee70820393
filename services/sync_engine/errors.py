"""What the sync engine refuses, as its callers see it: every reason of its API in one place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import grpc
from google.rpc import error_details_pb2

from labferry.sync.v1 import error_reason_pb2 as reasons
from libs.event_log.errors import as_labferry_error as log_error
from libs.run_tree.creation_errors import (
    CreationError,
    CreationExistsError,
    CreationLockedError,
    CreationMissingError,
    CreationNotWritableError,
    SchemaMajorMismatchError,
)
from libs.run_tree.run_path import RunKind
from libs.service_kit.errors import FieldViolation, LabferryError, Reason, UnavailableError, bad_request
from services.sync_engine.jobs.job import JobStateError
from services.sync_engine.runs.run import OverrideNotFoundError, OverrideNotRevocableError
from services.sync_engine.transfer.transport import TransferError
from services.sync_engine.validation.walk import WalkError

DOMAIN = "sync.labferry"


def _reason(value: reasons.ErrorReason.ValueType) -> Reason:
    return Reason(DOMAIN, reasons.ErrorReason.Name(value).removeprefix("ERROR_REASON_"))


class RunNotFoundError(LabferryError):
    code = grpc.StatusCode.NOT_FOUND
    reason = _reason(reasons.ERROR_REASON_RUN_NOT_FOUND)


class EquipmentNotConfiguredError(LabferryError):
    code = grpc.StatusCode.NOT_FOUND
    reason = _reason(reasons.ERROR_REASON_EQUIPMENT_NOT_CONFIGURED)


class PathOutsideRootsError(LabferryError):
    """`field` is where the request names the path."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = _reason(reasons.ERROR_REASON_PATH_OUTSIDE_ROOTS)

    def __init__(self, message: str, path: str, field: str = "run") -> None:
        super().__init__(message, metadata={"path": path})
        self.field = field

    def details(self) -> Sequence[error_details_pb2.BadRequest]:
        return (bad_request([FieldViolation(self.field, self.message)]),)


class CreationFileMissingError(LabferryError):
    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = _reason(reasons.ERROR_REASON_CREATION_FILE_MISSING)


class SchemaMismatchError(LabferryError):
    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = _reason(reasons.ERROR_REASON_SCHEMA_MAJOR_MISMATCH)


class CreationFileUnreadableError(LabferryError):
    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = _reason(reasons.ERROR_REASON_CREATION_FILE_UNREADABLE)


class CreationFileLockedError(UnavailableError):
    reason = _reason(reasons.ERROR_REASON_CREATION_FILE_LOCKED)


class CreationFileNotWritableError(LabferryError):
    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = _reason(reasons.ERROR_REASON_CREATION_FILE_NOT_WRITABLE)


class JobNotFoundError(LabferryError):
    code = grpc.StatusCode.NOT_FOUND
    reason = _reason(reasons.ERROR_REASON_JOB_NOT_FOUND)


class JobStateRefusedError(LabferryError):
    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = _reason(reasons.ERROR_REASON_JOB_STATE)


class OverrideUnknownError(LabferryError):
    code = grpc.StatusCode.NOT_FOUND
    reason = _reason(reasons.ERROR_REASON_OVERRIDE_NOT_FOUND)


class OverrideStateError(LabferryError):
    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = _reason(reasons.ERROR_REASON_OVERRIDE_NOT_REVOCABLE)


class RunExistsError(LabferryError):
    code = grpc.StatusCode.ALREADY_EXISTS
    reason = _reason(reasons.ERROR_REASON_RUN_EXISTS)


class NoSuchChangeError(LabferryError):
    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = _reason(reasons.ERROR_REASON_NO_SUCH_CHANGE)


class NothingVerifiedError(LabferryError):
    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = _reason(reasons.ERROR_REASON_NOTHING_VERIFIED)


class DestinationNotFoundError(LabferryError):
    code = grpc.StatusCode.NOT_FOUND
    reason = _reason(reasons.ERROR_REASON_DESTINATION_NOT_FOUND)


def no_destination(equipment_id: str, name: str, *, was_there: bool = False) -> DestinationNotFoundError:
    """`was_there`: the log knows it."""
    said = f"{equipment_id} has no destination {name!r}"
    if was_there:
        said += " any more: it was taken out of the configuration. What was proven there is kept in the log"
    return DestinationNotFoundError(said, metadata={"equipment_id": equipment_id, "destination": name})


class DestinationUnusableError(UnavailableError):
    reason = _reason(reasons.ERROR_REASON_DESTINATION_UNUSABLE)


class ReceiptNotFoundError(LabferryError):
    code = grpc.StatusCode.NOT_FOUND
    reason = _reason(reasons.ERROR_REASON_RECEIPT_NOT_FOUND)


class SourceUnreadableError(LabferryError):
    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = _reason(reasons.ERROR_REASON_SOURCE_UNREADABLE)


class StagingNotDrivenError(LabferryError):
    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = _reason(reasons.ERROR_REASON_STAGING_NOT_DRIVEN)


def as_labferry_error(error: Exception) -> LabferryError | None:
    """The error that callers see for one of the engine's or its libraries'. None: a defect."""
    match error:
        case JobStateError():
            return JobStateRefusedError(
                str(error),
                metadata={"job_id": error.job.job_id, "state": error.job.state.value, "command": error.command},
            )
        case OverrideNotFoundError():
            return OverrideUnknownError(str(error), metadata={"run": error.run, "override_id": error.override_id})
        case OverrideNotRevocableError():
            return OverrideStateError(str(error), metadata={"run": error.run, "override_id": error.override_id})
        case CreationError():
            return creation_error(error)
        case WalkError():
            return SourceUnreadableError(error.message, metadata={"path": error.path, "detail": error.message})
        case TransferError():
            return SourceUnreadableError(error.message, metadata={"path": "", "detail": error.message})
        case _:
            return log_error(error)


def _without_creation(path: Path) -> str:
    """What can be done about it. A run's folder can't be adopted where it lies: its copy would get this very place."""
    group = path.parent.parent.parent.name
    if RunKind.of_group(group) is None:
        return " Restore it: AdoptRun makes runs only."
    return f" Restore it; or move the folder out of {group}/, to another place in its local_root, for AdoptRun."


def creation_error(error: CreationError) -> LabferryError:
    """What a caller sees of a creation.json that can't be used."""
    path = str(error.path or "")
    match error:
        case CreationMissingError():
            hint = _without_creation(error.path) if error.path else ""
            return CreationFileMissingError(f"{error.message}{hint}", metadata={"path": path})
        case SchemaMajorMismatchError():
            metadata = {
                "code": error.code,
                "field": error.field,
                "expected_major": str(error.expected_major),
                "found": error.found or "",
                "path": path,
            }
            return SchemaMismatchError(error.message, metadata=metadata)
        case CreationLockedError():
            return CreationFileLockedError(error.message, metadata={"path": path})
        case CreationNotWritableError():
            return CreationFileNotWritableError(error.message, metadata={"path": path, "detail": error.message})
        case CreationExistsError():
            return RunExistsError(error.message, metadata={"run": path})
        case _:
            return CreationFileUnreadableError(error.message, metadata={"path": path, "detail": error.message})
