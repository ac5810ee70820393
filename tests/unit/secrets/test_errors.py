from __future__ import annotations

from labferry.secrets.v1 import error_reason_pb2 as reasons
from libs.service_kit.errors import LabferryError
from services.secrets import errors


def test_every_documented_reason_has_its_error() -> None:
    names = reasons.ErrorReason.DESCRIPTOR.values_by_name
    documented = {n.removeprefix("ERROR_REASON_") for n in names} - {"UNSPECIFIED"}
    mapped = {
        e.reason.name
        for e in vars(errors).values()
        if isinstance(e, type) and issubclass(e, LabferryError) and e.__module__ == errors.__name__
        if e.reason.domain == errors.DOMAIN
    }
    assert mapped == documented
