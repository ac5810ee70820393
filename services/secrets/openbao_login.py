"""How this service proves itself to OpenBao, and for how long that counts. Blocks; runs in threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hvac
import requests

from libs.service_kit.openbao_settings import AppRoleLogin, KubernetesLogin, OpenBaoSettings, TokenFileLogin
from services.secrets.errors import OpenBaoRefusedError

_RENEWED_AFTER = 2 / 3


@dataclass(frozen=True, slots=True)
class _Token:
    """`renew_at`: of the monotonic clock; None: it can't be renewed, and is asked for anew when it is refused."""

    text: str = field(repr=False)
    renew_at: float | None


class OpenBaoLogin:
    """Any thread may call it. Errors of `hvac` and `requests` are the caller's to translate."""

    def __init__(self, settings: OpenBaoSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._token: _Token | None = None

    def client(self) -> hvac.Client:
        """Logged in, and nobody else's: a connection that died with the server is in no pool. OpenBaoRefusedError when
        a file of the login can't be read."""
        with self._lock:
            if self._token is None:
                self._token = self._log_in()
            return self._client(self._token.text)

    def forget(self, used: hvac.Client) -> None:
        """The token of this client was refused: the next client logs in anew."""
        with self._lock:
            if self._token is not None and self._token.text == used.token:
                self._token = None

    def seconds_to_renewal(self) -> float | None:
        """None: there is nothing to be renewed."""
        with self._lock:
            if self._token is None or self._token.renew_at is None:
                return None
            return max(0.0, self._token.renew_at - time.monotonic())

    def renew(self) -> None:
        """Gives the token a new term; one that can't have any is asked for anew with the next call."""
        with self._lock:
            if self._token is None:
                return
            text = self._token.text
            self._token = None
            self._token = _token(text, self._client(text).auth.token.renew_self()["auth"])

    def _log_in(self) -> _Token:
        login, client = self._settings.login, self._client("")
        match login:
            case TokenFileLogin():
                text = _read(login.token_file)
                found = self._client(text).auth.token.lookup_self()["data"]
                return _token(text, {"lease_duration": found.get("ttl", 0), "renewable": found.get("renewable", False)})
            case AppRoleLogin():
                answer = client.auth.approle.login(
                    role_id=login.role_id,
                    secret_id=_read(login.secret_id_file),
                    use_token=False,
                    mount_point=login.mount,
                )
            case KubernetesLogin():
                answer = client.auth.kubernetes.login(
                    role=login.role, jwt=_read(login.jwt_file), use_token=False, mount_point=login.mount
                )
        return _token(answer["auth"]["client_token"], answer["auth"])

    def _client(self, token: str) -> hvac.Client:
        settings, session = self._settings, requests.Session()
        # Neither a proxy of the environment nor its certificates have a say in where secrets go.
        session.trust_env = False
        # The client asks a session that it is given whom to trust.
        session.verify = True if settings.ca_file is None else str(settings.ca_file)
        client = hvac.Client(
            url=settings.address,
            token=token,
            timeout=settings.timeout_seconds,
            session=session,
            allow_redirects=False,
        )
        # Without one it would look for somebody's in the environment and in the home folder.
        client.token = token
        return client


def _token(text: str, told: Mapping[str, Any]) -> _Token:
    seconds = float(told.get("lease_duration") or 0)
    renewable = bool(told.get("renewable")) and seconds > 0
    return _Token(text, time.monotonic() + seconds * _RENEWED_AFTER if renewable else None)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise OpenBaoRefusedError(f"{path}, which the login needs, can't be read: {type(error).__name__}") from error
