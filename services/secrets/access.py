"""Which identity may read which value, and who may know of it."""

from __future__ import annotations

from libs.service_kit.identity import OPERATORS, SERVICES, Role
from services.secrets.secret_id import DEFAULT_SERVICE, LIMS_PREFIX, LIMS_USERNAME, NAS_PREFIX, SecretId


def may_read(roles: frozenset[Role], secret: SecretId) -> bool:
    """The gateway reads `lims` and `lims:<NAME>`, the engine `nas:<EQUIPMENT_ID>`, nobody reads anything else.

    People set, replace, delete and list, and never read back. Secrets that other programs keep in the same keyring
    under another service are nobody's here.
    """
    if secret.service != DEFAULT_SERVICE:
        return False
    if secret.username == LIMS_USERNAME or secret.username.startswith(LIMS_PREFIX):
        return Role.SERVICE_LIMS_GATEWAY in roles
    if secret.username.startswith(NAS_PREFIX):
        return Role.SERVICE_SYNC_ENGINE in roles
    return False


def may_know_date(roles: frozenset[Role], secret: SecretId) -> bool:
    """By when a value is to be replaced: operators of every name; the engine, which tells of it as a problem, of the
    names that the lab's own services read."""
    if not OPERATORS.isdisjoint(roles):
        return True
    return Role.SERVICE_SYNC_ENGINE in roles and may_read(SERVICES, secret)
