"""TLS of a service's address, and of the calls it makes: certificates are read again when they are renewed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from libs.service_kit.tls_settings import TlsSettings


class TlsFilesError(Exception):
    """Certificate, key or CA can't be used; one plain sentence."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What the files held at one moment: a key and a certificate that belong together."""

    key: bytes
    certificate: bytes
    ca: bytes
    client_ca: bytes | None


class TlsFilesWatch:
    """Reads the files again when one of them changed. Half a renewal is no renewal: until key and certificate belong
    together, the earlier ones count. Any thread may use it."""

    def __init__(self, settings: TlsSettings, on_problem: Callable[[str], None]) -> None:
        self._settings = settings
        self._on_problem = on_problem
        self._signature = self._look()
        self.present = _read(settings)

    def renewed(self) -> TlsFiles | None:
        """What is there now, if it is another than at the last call that said so."""
        try:
            signature = self._look()
            if signature == self._signature:
                return None
            present = _read(self._settings)
        except TlsFilesError as error:
            self._on_problem(str(error))
            return None
        self._signature = signature
        if present == self.present:
            return None
        self.present = present
        return present

    def _look(self) -> Sequence[tuple[int, int]]:
        settings = self._settings
        found = []
        for path in (settings.certificate, settings.key, settings.ca, settings.client_ca):
            if path is not None:
                try:
                    status = path.stat()
                except OSError as error:
                    raise TlsFilesError(f"{path} can't be read: {error.strerror}") from error
                found.append((status.st_ino, status.st_mtime_ns))
        return found


def _read(settings: TlsSettings) -> TlsFiles:
    key, certificate = _bytes(settings.key), _bytes(settings.certificate)
    try:
        private = serialization.load_pem_private_key(key, password=None)
        public = x509.load_pem_x509_certificate(certificate).public_key()
    except (ValueError, TypeError) as error:
        raise TlsFilesError(f"{settings.certificate} or {settings.key} is no PEM without a passphrase") from error
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*form) != public.public_bytes(*form):
        raise TlsFilesError(f"{settings.key} does not belong to {settings.certificate}")
    return TlsFiles(
        key, certificate, _bytes(settings.ca), None if settings.client_ca is None else _bytes(settings.client_ca)
    )


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TlsFilesError(f"{path} can't be read: {error.strerror}") from error


def server_credentials(settings: TlsSettings, on_problem: Callable[[str], None]) -> grpc.ServerCredentials:
    """Asks for the callers' certificates where `client_ca` says who signs them. TlsFilesError."""
    watch = TlsFilesWatch(settings, on_problem)

    def configuration(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration(
            [(files.key, files.certificate)], root_certificates=files.client_ca
        )

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        files = watch.renewed()
        return None if files is None else configuration(files)

    return grpc.dynamic_ssl_server_credentials(
        configuration(watch.present),
        # None, "as before", is missing in the stubs.
        cast(Callable[[], grpc.ServerCertificateConfiguration], fetch),
        require_client_authentication=settings.client_ca is not None,
    )


def ca_credentials(settings: TlsSettings) -> grpc.ChannelCredentials:
    """Trusts what `ca` signed, and proves nothing by itself. TlsFilesError."""
    return grpc.ssl_channel_credentials(_bytes(settings.ca))


def certificate_credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    """Trusts what `ca` signed, and proves itself by its own certificate."""
    return grpc.ssl_channel_credentials(files.ca, files.key, files.certificate)
