"""A small certificate authority for labs that have none: one key, short-lived certificates (ARCHITECTURE §5).

Blocking. OSError of the system; CertificateError with one plain sentence for everything else.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from libs.service_kit.identity_registry import IdentityError, write_private

AUTHORITY_CERTIFICATE = "ca.pem"
_AUTHORITY_KEY = "ca.key"
CERTIFICATE = "certificate.pem"
KEY = "key.pem"
_BACKDATED = timedelta(minutes=5)
"""Clocks of a lab's machines differ a little."""


class CertificateError(IdentityError):
    """What the authority can't do."""


def _now() -> datetime:
    return datetime.now(UTC)


def make_authority(folder: Path, lifetime: timedelta, clock: Callable[[], datetime] = _now) -> None:
    """A new authority in `folder`: `ca.pem`, which everybody may have, and `ca.key`, which only its owner can read."""
    for name in (AUTHORITY_CERTIFICATE, _AUTHORITY_KEY):
        if (folder / name).exists():
            raise CertificateError(f"{folder / name} exists already; an authority is not replaced")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Labferry lab CA")])
    now = clock()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    write_private(folder / _AUTHORITY_KEY, _key_text(key))
    _write_public(folder / AUTHORITY_CERTIFICATE, certificate)


def issue(
    authority: Path, names: Sequence[str], lifetime: timedelta, to: Path, clock: Callable[[], datetime] = _now
) -> datetime:
    """A certificate and its key in the folder `to`, for a service or a person; replaces what is there. Returns when it
    ends. `names`: DNS names, IP addresses, or URIs; the first proves who it is."""
    if not names:
        raise CertificateError("a certificate needs a name")
    issuer, issuer_key = _load(authority)
    now = clock()
    ends = min(now + lifetime, issuer.not_valid_after_utc)
    if ends <= now:
        raise CertificateError(f"the authority in {authority} ended at {issuer.not_valid_after_utc:%Y-%m-%d}")
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(max(now - _BACKDATED, issuer.not_valid_before_utc))
        .not_valid_after(ends)
        .add_extension(x509.SubjectAlternativeName([_general_name(n) for n in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    # The key first: who reload both by the certificate's change finds them together.
    _replace_private(to / KEY, _key_text(key))
    _write_public(to / CERTIFICATE, certificate)
    return ends


def _load(authority: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        certificate = x509.load_pem_x509_certificate((authority / AUTHORITY_CERTIFICATE).read_bytes())
        key = serialization.load_pem_private_key((authority / _AUTHORITY_KEY).read_bytes(), password=None)
    except FileNotFoundError as error:
        raise CertificateError(f"{error.filename} is not there; labferry identity ca makes it") from error
    except ValueError as error:
        raise CertificateError(f"the authority in {authority} can't be read") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise CertificateError(f"key and certificate in {authority} don't belong together")
    return certificate, key


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return x509.UniformResourceIdentifier(name) if "://" in name else x509.DNSName(name)
    except ValueError as error:
        raise CertificateError(f"{name!r} is no DNS name, IP address or URI") from error


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _key_text(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode("ascii")


def _replace_private(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".new")
    write_private(temporary, text)
    temporary.replace(path)


def _write_public(path: Path, certificate: x509.Certificate) -> None:
    temporary = path.with_name(path.name + ".new")
    temporary.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    os.chmod(temporary, 0o644)
    temporary.replace(path)
