"""What the gateway's project side refuses or fails at, each with its documented reason."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum

import grpc

from labferry.lims.v1 import error_reason_pb2 as reasons
from libs.service_kit.errors import LabferryError, Reason, UnavailableError

DOMAIN = "lims.labferry"


def _reason(value: reasons.ErrorReason.ValueType) -> Reason:
    return Reason(DOMAIN, reasons.ErrorReason.Name(value).removeprefix("ERROR_REASON_"))


class LimsUnreachableError(UnavailableError):
    """No usable answer from the LIMS: refused, timed out, 5xx, or something that isn't its JSON."""

    reason = _reason(reasons.ERROR_REASON_LIMS_UNREACHABLE)

    def __init__(self, endpoint: str, problem: str) -> None:
        super().__init__(
            f"the LIMS at {endpoint} can't be reached: {problem}",
            metadata={"endpoint": endpoint},
            retry_after=timedelta(seconds=10),
        )


class LimsLoginRefusedError(LabferryError):
    """The LIMS answers and doesn't let us in. Trying again changes nothing; somebody must look at the configuration."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = _reason(reasons.ERROR_REASON_LIMS_LOGIN_REFUSED)

    def __init__(self, endpoint: str, email: str, problem: str) -> None:
        super().__init__(problem, metadata={"endpoint": endpoint, "email": email})


class LimsNotConfiguredError(LabferryError):
    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = _reason(reasons.ERROR_REASON_LIMS_NOT_CONFIGURED)

    def __init__(self) -> None:
        super().__init__("no LIMS is configured; set lims.endpoint and lims.email")


class UnknownEndpointError(LabferryError):
    code = grpc.StatusCode.NOT_FOUND
    reason = _reason(reasons.ERROR_REASON_UNKNOWN_ENDPOINT)

    def __init__(self, endpoint: str) -> None:
        super().__init__(f"no LIMS with the endpoint {endpoint} is configured", metadata={"endpoint": endpoint})


class ProjectNotFoundError(LabferryError):
    code = grpc.StatusCode.NOT_FOUND
    reason = _reason(reasons.ERROR_REASON_PROJECT_NOT_FOUND)

    def __init__(self, id_: str, source: str) -> None:
        super().__init__(f"there is no project {id_} (asked: {source})", metadata={"id": id_, "source": source})


class PasswordUnavailableCause(StrEnum):
    """`sealed`: the secrets service itself is well, and waits for an operator."""

    SEALED = "sealed"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    UNUSABLE = "unusable"


class PasswordUnavailableError(UnavailableError):
    reason = _reason(reasons.ERROR_REASON_PASSWORD_UNAVAILABLE)

    def __init__(self, cause: PasswordUnavailableCause, problem: str) -> None:
        super().__init__(
            f"the LIMS password can't be had from the secrets service: {problem}",
            metadata={"cause": cause, "dependency": "secrets"},
            retry_after=timedelta(seconds=5),
        )
        self.cause = cause


class CacheUnusableError(UnavailableError):
    """The gateway's own cache file can't be read or written."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"the project cache can't be used: {problem}", metadata={"dependency": "project cache"})
