"""What a request to SecretsService must look like. Checked here, once; wrong fields are named, values never quoted."""

from __future__ import annotations

import re
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from labferry.secrets.v1 import secrets_service_pb2 as pb
from libs.service_kit.errors import FieldViolation, InvalidRequestError
from services.secrets.secret_id import DEFAULT_SERVICE, PROBE_USERNAME, SecretId
from services.secrets.secret_text import SecretText

MAX_NAME_CHARACTERS = 255
MAX_VALUE_BYTES = 64 << 10
MIN_PASSPHRASE_CHARACTERS = 8
MAX_PASSPHRASE_BYTES = 4 << 10
MAX_REASON_CHARACTERS = 2000
MAX_PURPOSE_CHARACTERS = 200
_LEASE_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class SetRequest:
    secret: SecretId
    value: SecretText
    rotate_by: Timestamp | None


@dataclass(frozen=True, slots=True)
class RotateByRequest:
    """`rotate_by` None: no such date any more."""

    secret: SecretId
    rotate_by: Timestamp | None


@dataclass(frozen=True, slots=True)
class DeleteRequest:
    secret: SecretId
    reason: str


@dataclass(frozen=True, slots=True)
class GetRequest:
    """`lease_id` empty: without a lease."""

    secret: SecretId
    lease_id: str


@dataclass(frozen=True, slots=True)
class AcquireRequest:
    secret: SecretId
    purpose: str


@dataclass(frozen=True, slots=True)
class RevokeRequest:
    lease_id: str
    reason: str


def get_request(request: pb.GetSecretRequest) -> GetRequest:
    wrong: list[FieldViolation] = []
    secret = _secret_id(request.service, request.username, wrong)
    if request.lease_id:
        _lease_id(request.lease_id, wrong)
    _refuse(wrong)
    return GetRequest(secret, request.lease_id)


def acquire_request(request: pb.AcquireLeaseRequest) -> AcquireRequest:
    wrong: list[FieldViolation] = []
    secret = _secret_id(request.service, request.username, wrong)
    if not 1 <= len(request.purpose) <= MAX_PURPOSE_CHARACTERS or not request.purpose.isprintable():
        wrong.append(FieldViolation("purpose", f"must be 1 to {MAX_PURPOSE_CHARACTERS} printable characters"))
    _refuse(wrong)
    return AcquireRequest(secret, request.purpose)


def renew_request(request: pb.RenewLeaseRequest) -> str:
    """The lease's id."""
    wrong: list[FieldViolation] = []
    _lease_id(request.lease_id, wrong)
    _refuse(wrong)
    return request.lease_id


def revoke_request(request: pb.RevokeLeaseRequest, *, is_holder: bool) -> RevokeRequest:
    wrong: list[FieldViolation] = []
    _lease_id(request.lease_id, wrong)
    reason = request.reason.strip()
    if not reason and not is_holder:
        wrong.append(FieldViolation("reason", "is required: why is another's lease revoked?"))
    elif len(reason) > MAX_REASON_CHARACTERS:
        wrong.append(FieldViolation("reason", f"must have at most {MAX_REASON_CHARACTERS} characters"))
    _refuse(wrong)
    return RevokeRequest(request.lease_id, reason)


def set_request(request: pb.SetSecretRequest) -> SetRequest:
    wrong: list[FieldViolation] = []
    secret = _secret_id(request.service, request.username, wrong)
    size = len(request.value.encode())
    if not 1 <= size <= MAX_VALUE_BYTES:
        wrong.append(FieldViolation("value", f"must have 1 to {MAX_VALUE_BYTES} bytes, has {size}"))
    rotate_by = _rotate_by(request, wrong)
    _refuse(wrong)
    return SetRequest(secret, SecretText(request.value), rotate_by)


def rotate_by_request(request: pb.SetRotateByRequest) -> RotateByRequest:
    wrong: list[FieldViolation] = []
    secret = _secret_id(request.service, request.username, wrong)
    rotate_by = _rotate_by(request, wrong)
    _refuse(wrong)
    return RotateByRequest(secret, rotate_by)


def versions_request(request: pb.ListSecretVersionsRequest) -> SecretId:
    wrong: list[FieldViolation] = []
    secret = _secret_id(request.service, request.username, wrong)
    _refuse(wrong)
    return secret


def delete_request(request: pb.DeleteSecretRequest) -> DeleteRequest:
    wrong: list[FieldViolation] = []
    secret = _secret_id(request.service, request.username, wrong)
    reason = request.reason.strip()
    if not reason:
        wrong.append(FieldViolation("reason", "is required: why is the secret removed?"))
    elif len(reason) > MAX_REASON_CHARACTERS:
        wrong.append(FieldViolation("reason", f"must have at most {MAX_REASON_CHARACTERS} characters"))
    _refuse(wrong)
    return DeleteRequest(secret, reason)


def list_request(request: pb.ListSecretsRequest) -> str:
    """The service whose names are asked for."""
    wrong: list[FieldViolation] = []
    service = _service(request.service, wrong)
    _refuse(wrong)
    return service


def new_passphrase(text: str, field: str = "passphrase") -> SecretText:
    """A passphrase for a new file: not too short to be one."""
    wrong: list[FieldViolation] = []
    if len(text) < MIN_PASSPHRASE_CHARACTERS:
        wrong.append(FieldViolation(field, f"must have at least {MIN_PASSPHRASE_CHARACTERS} characters"))
    _check_length(text, field, wrong)
    _refuse(wrong)
    return SecretText(text)


def passphrase(text: str, field: str = "passphrase") -> SecretText:
    """A passphrase of an existing file: another program may have allowed a short one."""
    wrong: list[FieldViolation] = []
    if not text:
        wrong.append(FieldViolation(field, "is required"))
    _check_length(text, field, wrong)
    _refuse(wrong)
    return SecretText(text)


def _check_length(text: str, field: str, wrong: list[FieldViolation]) -> None:
    if len(text.encode()) > MAX_PASSPHRASE_BYTES:
        wrong.append(FieldViolation(field, f"must have at most {MAX_PASSPHRASE_BYTES} bytes"))


def _secret_id(service: str, username: str, wrong: list[FieldViolation]) -> SecretId:
    secret = SecretId(_service(service, wrong), username)
    if not 1 <= len(username) <= MAX_NAME_CHARACTERS or not username.isprintable():
        wrong.append(FieldViolation("username", f"must be 1 to {MAX_NAME_CHARACTERS} printable characters"))
    elif username == PROBE_USERNAME:
        wrong.append(FieldViolation("username", f'"{PROBE_USERNAME}" is kept for probing keyrings'))
    return secret


def _service(service: str, wrong: list[FieldViolation]) -> str:
    if len(service) > MAX_NAME_CHARACTERS or not service.isprintable() or "/" in service:
        wrong.append(
            FieldViolation("service", f'must be at most {MAX_NAME_CHARACTERS} printable characters other than "/"')
        )
    return service or DEFAULT_SERVICE


def _lease_id(lease_id: str, wrong: list[FieldViolation]) -> None:
    if not _LEASE_ID.fullmatch(lease_id):
        wrong.append(FieldViolation("lease_id", "was not given out by this service"))


def _rotate_by(request: pb.SetSecretRequest | pb.SetRotateByRequest, wrong: list[FieldViolation]) -> Timestamp | None:
    if not request.HasField("rotate_by"):
        return None
    try:
        request.rotate_by.ToDatetime()
    except (ValueError, OverflowError):
        wrong.append(FieldViolation("rotate_by", "is not a valid time"))
    return request.rotate_by


def _refuse(wrong: list[FieldViolation]) -> None:
    if wrong:
        raise InvalidRequestError(*wrong)
