"""What the secrets service refuses or fails at, each with its documented reason."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

import grpc
from google.rpc import error_details_pb2

from labferry.secrets.v1 import error_reason_pb2 as reasons
from libs.service_kit.errors import LabferryError, Reason, UnavailableError, retry_info
from services.secrets.secret_id import SecretId

DOMAIN = "secrets.labferry"


class LeaseEnd(StrEnum):
    REVOKED = "revoked"
    EXPIRED = "expired"
    UNKNOWN = "unknown"


def _reason(value: reasons.ErrorReason.ValueType) -> Reason:
    return Reason(DOMAIN, reasons.ErrorReason.Name(value).removeprefix("ERROR_REASON_"))


class SealedError(LabferryError):
    """The encrypted file is there, its key is not."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = _reason(reasons.ERROR_REASON_SEALED)

    def __init__(self, message: str = "the secrets are sealed; unseal them with the passphrase") -> None:
        super().__init__(message)


class WrongPassphraseError(LabferryError):
    code = grpc.StatusCode.PERMISSION_DENIED
    reason = _reason(reasons.ERROR_REASON_WRONG_PASSPHRASE)

    def __init__(self) -> None:
        super().__init__("the passphrase does not open the encrypted file")


class TooManyAttemptsError(LabferryError):
    """Too soon after wrong passphrases; nothing was tried."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = _reason(reasons.ERROR_REASON_TOO_MANY_ATTEMPTS)

    def __init__(self, wait: timedelta) -> None:
        super().__init__(f"passphrases were wrong; the next one is looked at in {wait.total_seconds():.0f} s")
        self.wait = wait

    def details(self) -> Sequence[error_details_pb2.RetryInfo]:
        return (retry_info(self.wait),)


class StoreDamagedError(LabferryError):
    """The file can't be decoded. `detail` never quotes its content."""

    code = grpc.StatusCode.DATA_LOSS
    reason = _reason(reasons.ERROR_REASON_STORE_DAMAGED)

    def __init__(self, path: Path, detail: str) -> None:
        super().__init__(f"{path} is damaged: {detail}", metadata={"path": str(path)})


class UnknownVersionError(LabferryError):
    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = _reason(reasons.ERROR_REASON_UNKNOWN_VERSION)

    def __init__(self, path: Path, version: str) -> None:
        super().__init__(
            f"{path} has version {version}; this release reads versions 1 and 2",
            metadata={"path": str(path), "version": version},
        )


class StoreDowngradedError(LabferryError):
    """An older version lies where an upgraded file was."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = _reason(reasons.ERROR_REASON_STORE_DOWNGRADED)

    def __init__(self, path: Path, version: int) -> None:
        super().__init__(
            f"{path} has version {version}, and was upgraded before; put the upgraded file back",
            metadata={"path": str(path), "version": str(version)},
        )


class UnsafeModeError(LabferryError):
    """A file or folder that others can use or own, or something else in its place."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = _reason(reasons.ERROR_REASON_UNSAFE_MODE)

    def __init__(self, path: Path, mode: str, problem: str) -> None:
        super().__init__(f"{path} {problem}", metadata={"path": str(path), "mode": mode})


class NotInitializedError(LabferryError):
    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = _reason(reasons.ERROR_REASON_NOT_INITIALIZED)

    def __init__(self, path: Path) -> None:
        super().__init__(f"there is no encrypted file at {path}; initialize it first", metadata={"path": str(path)})


class AlreadyInitializedError(LabferryError):
    code = grpc.StatusCode.ALREADY_EXISTS
    reason = _reason(reasons.ERROR_REASON_ALREADY_INITIALIZED)

    def __init__(self, path: Path, message: str = "") -> None:
        super().__init__(message or f"there is an encrypted file at {path} already", metadata={"path": str(path)})


class SecretNotFoundError(LabferryError):
    code = grpc.StatusCode.NOT_FOUND
    reason = _reason(reasons.ERROR_REASON_SECRET_NOT_FOUND)

    def __init__(self, secret: SecretId) -> None:
        super().__init__(
            f"nothing is kept for {secret.username} of {secret.service}",
            metadata={"service": secret.service, "username": secret.username},
        )


class SecretNotAllowedError(LabferryError):
    code = grpc.StatusCode.PERMISSION_DENIED
    reason = _reason(reasons.ERROR_REASON_SECRET_NOT_ALLOWED)

    def __init__(self, secret: SecretId, actor: str) -> None:
        super().__init__(
            f"{actor} may not read {secret.username} of {secret.service}",
            metadata={"service": secret.service, "username": secret.username},
        )


class LeaseNotLiveError(LabferryError):
    """The lease gives no right to what was asked. `end`: how it ended, as far as that is still known."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = _reason(reasons.ERROR_REASON_LEASE_NOT_LIVE)

    def __init__(self, lease_id: str, end: LeaseEnd) -> None:
        super().__init__(
            f"there is no live lease {lease_id} of this caller for that",
            metadata={"lease_id": lease_id, "end": end},
        )


class KeyringUnavailableError(UnavailableError):
    reason = _reason(reasons.ERROR_REASON_KEYRING_UNAVAILABLE)

    def __init__(self, problem: str) -> None:
        super().__init__(f"the OS keyring does not answer: {problem}", retry_after=timedelta(seconds=5))


class KeyringMissingError(KeyringUnavailableError):
    def __init__(self) -> None:
        super().__init__("there is none")


class OpenBaoUnavailableError(UnavailableError):
    reason = _reason(reasons.ERROR_REASON_OPENBAO_UNAVAILABLE)

    def __init__(self, address: str, problem: str) -> None:
        super().__init__(f"OpenBao at {address} can't be used now: {problem}", metadata={"dependency": address})


class OpenBaoRefusedError(LabferryError):
    """The login or the path is refused: a matter of its policies, not of the caller's."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = _reason(reasons.ERROR_REASON_OPENBAO_REFUSED)

    def __init__(self, problem: str) -> None:
        super().__init__(f"OpenBao: {problem}")


class NoSuchMountError(LabferryError):
    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = _reason(reasons.ERROR_REASON_NO_SUCH_MOUNT)

    def __init__(self, address: str, mount: str) -> None:
        super().__init__(f"OpenBao at {address} has no KV engine at {mount}", metadata={"mount": mount})


class SecretChangedMeanwhileError(LabferryError):
    """Nothing was overwritten."""

    code = grpc.StatusCode.ABORTED
    reason = _reason(reasons.ERROR_REASON_SECRET_CHANGED_MEANWHILE)

    def __init__(self, secret: SecretId) -> None:
        super().__init__(
            f"another program changed {secret.username} of {secret.service} meanwhile; try again",
            metadata={"service": secret.service, "username": secret.username},
        )


class StoreUnusableError(UnavailableError):
    """The system refuses to read or write the encrypted file: a full disk, a vanished mount."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path} can't be used: {problem}", metadata={"dependency": str(path)})
