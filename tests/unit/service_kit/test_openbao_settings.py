from __future__ import annotations

import pytest
from pydantic import ValidationError

from libs.service_kit.openbao_settings import OpenBaoSettings
from libs.service_kit.settings import SecretsSettings

LOGIN = {"method": "kubernetes", "role": "labferry"}


def test_the_least_that_must_be_said() -> None:
    settings = OpenBaoSettings.model_validate({"address": "https://openbao.lab.example:8200/", "login": LOGIN})
    assert (settings.address, settings.mount, settings.path_prefix) == (
        "https://openbao.lab.example:8200",
        "secret",
        "labferry",
    )
    assert OpenBaoSettings.model_validate({"address": "http://127.0.0.1:8200", "login": LOGIN})


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"address": "http://openbao.lab.example:8200"}, "never travel in plaintext"),
        ({"address": "openbao"}, "must be https://HOST:PORT"),
        ({"address": "https://me:word@openbao:8200"}, "must be https://HOST:PORT"),
        ({"login": {"method": "approle", "role_id": "r"}}, "secret_id_file"),
        ({"login": {"method": "password"}}, "approle"),
        ({"token": "s.1234"}, "Extra inputs"),
        ({"path_prefix": "../other//"}, "path_prefix"),
    ],
)
def test_what_is_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        OpenBaoSettings.model_validate({"address": "https://openbao:8200", "login": LOGIN, **wrong})


def test_the_backend_needs_its_block() -> None:
    with pytest.raises(ValidationError, match="needs the block openbao"):
        SecretsSettings.model_validate({"backend": "openbao"})
