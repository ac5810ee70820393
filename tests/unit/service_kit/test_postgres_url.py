"""Addresses of the event log's database: no secret in the configuration, no plaintext beyond this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from libs.service_kit.config import ConfigurationError, load_configuration
from libs.service_kit.postgres_url import check_postgres_url

HERE = [
    "postgresql://labferry@localhost/labferry",
    "postgres://labferry@127.0.0.1:5433/labferry",
    "postgresql://labferry@[::1]:5433/labferry",
    "postgresql://labferry@/labferry?host=/run/postgresql",
    "postgresql:///labferry?host=/run/postgresql&user=labferry",
    "postgresql://labferry@localhost/labferry?passfile=/run/secrets/pgpass&sslmode=disable",
]
ENCRYPTED = [
    "postgresql://labferry@db.lab.example/labferry?sslmode=verify-full&sslrootcert=/etc/ca.pem",
    "postgresql://labferry@db1.lab.example:5432,db2.lab.example:5433/labferry?sslmode=require",
]


@pytest.mark.parametrize("url", [*HERE, *ENCRYPTED])
def test_addresses_that_are_taken_as_they_are(url: str) -> None:
    assert check_postgres_url(url) == url


@pytest.mark.parametrize(
    ("url", "used"),
    [
        ("postgresql://a@db/labferry", "postgresql://a@db/labferry?sslmode=require"),
        ("postgresql://a@10.0.0.7/x?passfile=/p", "postgresql://a@10.0.0.7/x?passfile=/p&sslmode=require"),
        ("postgresql://a@localhost,db/x", "postgresql://a@localhost,db/x?sslmode=require"),
        ("postgresql://a@/x?host=db", "postgresql://a@/x?host=db&sslmode=require"),
    ],
)
def test_another_machine_is_reached_encrypted(url: str, used: str) -> None:
    assert check_postgres_url(url) == used


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("postgresql://labferry:hunter2@db/labferry", "holds a password; use passfile"),
        ("postgresql://labferry@db/labferry?password=hunter2", "holds a password; use passfile"),
        ("postgresql://labferry@db/labferry?sslpassword=hunter2", "holds a password; use passfile"),
        ("postgresql://labferry:hunter%3A2@db/labferry", "holds a password; use passfile"),
        ("postgresql://db/labferry", "names no user"),
        ("postgresql://labferry@db", "names no database"),
        ("postgresql://labferry@db/", "names no database"),
        ("postgresql://labferry@db/labferry?fsync=hunter2", "not known: fsync"),
        ("postgresql://labferry@db/labferry?sslmode=prefer", "plaintext"),
        ("postgresql://labferry@localhost,db/labferry?sslmode=disable", "plaintext"),
        ("mysql://labferry@db/labferry", "must be"),
        ("postgresql:labferry", "names no user"),
        ("sqlite:///x", "must be"),
        ("", "must be"),
    ],
)
def test_addresses_that_are_mistakes(tmp_path: Path, url: str, word: str) -> None:
    path = tmp_path / "labferry.yaml"
    path.write_text(f"state_dir: /var/lib/labferry\nevent_log: {{url: '{url}'}}\n", encoding="utf-8")
    with pytest.raises(ConfigurationError) as wrong:
        load_configuration(path, {})
    (mistake,) = wrong.value.mistakes
    assert (mistake.line, mistake.key) == (2, "event_log.url")
    assert word in mistake.description
    assert "hunter" not in str(wrong.value)


def test_both_kinds_of_log_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "labferry.yaml"
    path.write_text("state_dir: /var/lib/labferry\n", encoding="utf-8")
    assert load_configuration(path, {}).settings.event_log.url == "sqlite"
    chosen = {"LABFERRY_EVENT_LOG__URL": HERE[0]}
    assert load_configuration(path, chosen).settings.event_log.url == HERE[0]
