from __future__ import annotations

import pytest

from libs.service_kit.identity import Role
from services.secrets.access import may_read
from services.secrets.secret_id import DEFAULT_SERVICE, SecretId

NAMES = ("lims", "lims:elab", "nas:SCOPE_01", "nas:", "lims2", "NAS:X", "free", "_exlab_probe")
READABLE = {
    Role.SERVICE_LIMS_GATEWAY: {"lims", "lims:elab"},
    Role.SERVICE_SYNC_ENGINE: {"nas:SCOPE_01", "nas:"},
}


@pytest.mark.parametrize("role", list(Role))
def test_each_role_reads_what_the_table_says_and_nothing_else(role: Role) -> None:
    readable = {n for n in NAMES if may_read(frozenset({role}), SecretId(DEFAULT_SERVICE, n))}
    assert readable == READABLE.get(role, set())


def test_secrets_of_other_programs_are_nobodys() -> None:
    assert not [n for n in NAMES if may_read(frozenset(Role), SecretId("another", n))]


def test_nobody_without_a_role() -> None:
    assert not [n for n in NAMES if may_read(frozenset(), SecretId(DEFAULT_SERVICE, n))]
