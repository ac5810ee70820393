"""The registry of identities: what it makes, and what counts from the next call on."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from libs.service_kit.errors import UnauthenticatedError
from libs.service_kit.identities import Identities, ensure_identities
from libs.service_kit.identity import Caller, Role
from libs.service_kit.identity_registry import IdentityError, IdentityRegistry

NOW = datetime.now(UTC)


@pytest.fixture
def registry(tmp_path: Path) -> IdentityRegistry:
    return IdentityRegistry(tmp_path / "state")


def caller(registry: IdentityRegistry, token_file: Path) -> Caller:
    return Identities(registry.path.parent).authenticate(f"Bearer {token_file.read_text()}")


def is_refused(registry: IdentityRegistry, token: str) -> bool:
    try:
        Identities(registry.path.parent).authenticate(f"Bearer {token}")
    except UnauthenticatedError:
        return True
    return False


def test_a_new_persons_token_proves_who_calls(registry: IdentityRegistry, tmp_path: Path) -> None:
    token_file = tmp_path / "asmith.token"
    registry.create("asmith", [Role.OPERATOR], token_file, None)
    assert caller(registry, token_file) == Caller("asmith", frozenset({Role.OPERATOR}))
    assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(registry.path.stat().st_mode) == 0o600
    assert token_file.read_text() not in registry.path.read_text(), "only its hash is kept"


def test_a_rotated_token_counts_at_once_and_the_old_one_for_a_while(tmp_path: Path) -> None:
    registry = IdentityRegistry(tmp_path / "state")
    token_file = tmp_path / "t"
    registry.create("asmith", [Role.VIEWER], token_file, None)
    first = token_file.read_text()
    registry.rotate("asmith", token_file, timedelta(minutes=5))
    second = token_file.read_text()
    assert first != second
    assert not is_refused(registry, first)
    assert not is_refused(registry, second)
    earlier = IdentityRegistry(tmp_path / "state", clock=lambda: NOW - timedelta(minutes=10))
    earlier.rotate("asmith", token_file, timedelta(minutes=5))
    assert is_refused(registry, second), "the time for the old one is over"
    assert is_refused(registry, first)
    third = token_file.read_text()
    registry.rotate("asmith", token_file, timedelta())
    assert is_refused(registry, third)


def test_a_token_ends_when_it_was_to_end(tmp_path: Path) -> None:
    token_file = tmp_path / "t"
    past = IdentityRegistry(tmp_path / "state", clock=lambda: NOW - timedelta(days=2))
    past.create("asmith", [Role.VIEWER], token_file, timedelta(days=1))
    assert is_refused(past, token_file.read_text())
    past.rotate("asmith", token_file, timedelta(days=9))
    assert is_refused(past, token_file.read_text()), "a rotation prolongs nothing"
    past.create("bjones", [Role.VIEWER], tmp_path / "u", timedelta(days=3))
    assert not is_refused(past, (tmp_path / "u").read_text())


def test_a_revoked_name_is_never_given_again(registry: IdentityRegistry, tmp_path: Path) -> None:
    token_file = tmp_path / "t"
    registry.create("asmith", [Role.ADMIN], token_file, None)
    running = Identities(registry.path.parent)
    authorization = f"Bearer {token_file.read_text()}"
    assert running.authenticate(authorization).actor == "asmith"
    registry.revoke("asmith")
    with pytest.raises(UnauthenticatedError):
        Identities(registry.path.parent).authenticate(authorization)
    with pytest.raises(IdentityError, match="never given twice"):
        registry.create("asmith", [Role.ADMIN], tmp_path / "again", None)
    for change in (lambda: registry.revoke("asmith"), lambda: registry.rotate("asmith", token_file, timedelta())):
        with pytest.raises(IdentityError, match="was revoked at"):
            change()
    with pytest.raises(IdentityError, match="no identity nobody"):
        registry.revoke("nobody")


def test_a_revoked_identity_of_the_first_start_stays_revoked(tmp_path: Path) -> None:
    ensure_identities(tmp_path)
    token = (tmp_path / "operator.token").read_text()
    IdentityRegistry(tmp_path).revoke("operator-1")
    again = ensure_identities(tmp_path)
    with pytest.raises(UnauthenticatedError):
        again.authenticate(f"Bearer {token}")
    assert (tmp_path / "operator.token").read_text() == token, "no new one is made"


@pytest.mark.parametrize(
    ("name", "roles", "word"),
    [
        ("", [Role.VIEWER], "is no name"),
        ("../up", [Role.VIEWER], "is no name"),
        ("a\nb", [Role.VIEWER], "is no name"),
        ("service:sync_engine", [Role.VIEWER], "is no name"),
        ("asmith", [], "people have the roles"),
        ("asmith", [Role.SERVICE_SYNC_ENGINE], "people have the roles"),
    ],
)
def test_what_is_no_identity(
    registry: IdentityRegistry, tmp_path: Path, name: str, roles: list[Role], word: str
) -> None:
    with pytest.raises(IdentityError, match=word):
        registry.create(name, roles, tmp_path / "t", None)
    assert not (tmp_path / "t").exists()


def test_a_token_file_that_is_there_is_not_replaced(registry: IdentityRegistry, tmp_path: Path) -> None:
    (tmp_path / "t").write_text("mine")
    with pytest.raises(IdentityError, match="not replaced"):
        registry.create("asmith", [Role.VIEWER], tmp_path / "t", None)
    assert (tmp_path / "t").read_text() == "mine"
    assert registry.read() == ()


def test_a_damaged_registry_lets_nobody_in_and_says_why(registry: IdentityRegistry, tmp_path: Path) -> None:
    registry.create("asmith", [Role.VIEWER], tmp_path / "t", None)
    registry.path.write_text("{")
    with pytest.raises(IdentityError, match="can't be read"):
        registry.read()
    with pytest.raises(IdentityError):
        registry.create("bjones", [Role.VIEWER], tmp_path / "u", None)


def test_programs_that_change_it_at_the_same_time_lose_nothing(registry: IdentityRegistry, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from libs.service_kit.identity import Role\n"
        "from libs.service_kit.identity_registry import IdentityRegistry\n"
        "here, me = Path(sys.argv[1]), sys.argv[2]\n"
        "for n in range(10):\n"
        "    IdentityRegistry(here / 'state').create(f'{me}-{n}', [Role.VIEWER], here / f'{me}-{n}', None)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    writers = [subprocess.Popen([*command, f"w{n}"], cwd=os.getcwd()) for n in range(4)]
    assert [writer.wait(timeout=120) for writer in writers] == [0] * 4
    assert len(registry.read()) == 40
    assert len(json.loads(registry.path.read_text())["identities"]) == 40
