"""The receipt that lies beside a proven run: what was proven, where, how and when, signed (SPEC §4, ARCHITECTURE §4).

A JSON object in UTF-8. Its `signature` is Ed25519, in lower-case hex, by the holder of `public_key`, over the canonical
bytes of the object without `signature`: JSON with the keys of every object sorted, no white space, and every character
beyond ASCII written as \\u escapes. The object holds texts, integers, objects and lists, and nothing else, so that
these bytes are the same everywhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

LAYOUT = "labferry.receipt.v1"
_NAME = re.compile(r"receipt\.[a-z][a-z0-9_-]{0,62}\.json")


class ReceiptError(ValueError):
    """No receipt, or not one that counts. `field` names the part that is wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


class ProvenCopy(msgspec.Struct, frozen=True):
    """One destination's copy, as it was read back last. `log_position` and `log_hash` are those of the event that says
    so; `evidence_sha256` names the list of all its files in the engine's keeping."""

    destination: str
    transport: str
    job_id: str
    grade: str
    method: str
    host: str
    note: str
    verified_time: str
    expected: int
    hashed: int
    matched: int
    evidence_sha256: str
    log_position: int
    log_hash: str


class Receipt(msgspec.Struct, frozen=True):
    """What is vouched for. Times are RFC 3339 in UTC, hashes lower-case hex; `log_id` is the store_id of the event log.
    `tools` holds versions by name."""

    run: str
    equipment_id: str
    destination: str
    job_id: str
    amendment: int
    issued_time: str
    manifest_sha256: str
    file_count: int
    byte_count: int
    copies: Sequence[ProvenCopy]
    log_id: str
    tools: Mapping[str, str]


class _Document(Receipt, frozen=True, kw_only=True):
    layout: str
    public_key: str
    signature: str


@dataclass(frozen=True, slots=True)
class SignedReceipt:
    """A receipt whose signature fits `public_key`. Whose key that is, is another question."""

    receipt: Receipt
    public_key: bytes


def receipt_file_name(destination: str) -> str:
    """Name in the run's cache folder."""
    name = f"receipt.{destination}.json"
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"{destination!r} is no destination's name")
    return name


def sign_receipt(receipt: Receipt, key: Ed25519PrivateKey) -> bytes:
    """The file's bytes."""
    document = {
        **msgspec.to_builtins(receipt),
        "layout": LAYOUT,
        "public_key": key.public_key().public_bytes_raw().hex(),
    }
    document["signature"] = key.sign(_canonical(document)).hex()
    return json.dumps(document, indent=1, sort_keys=True).encode("ascii") + b"\n"


def read_receipt(content: bytes) -> SignedReceipt:
    """The receipt in these bytes, its signature checked. ReceiptError names what is wrong."""
    try:
        text = content.decode()
        raw = json.loads(text, object_pairs_hook=_each_key_once)
        document = msgspec.convert(raw, _Document)
    except (ValueError, RecursionError) as error:
        raise ReceiptError("format", f"is no receipt: {error}") from error
    if document.layout != LAYOUT:
        raise ReceiptError("layout", f"is {document.layout!r}, not {LAYOUT!r}")
    try:
        signature, public_key = bytes.fromhex(document.signature), bytes.fromhex(document.public_key)
        unsigned = {name: value for name, value in raw.items() if name != "signature"}
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, _canonical(unsigned))
    except (InvalidSignature, ValueError) as error:
        raise ReceiptError("signature", "does not fit: the receipt was changed after it was signed") from error
    fields = {name: getattr(document, name) for name in Receipt.__struct_fields__}
    return SignedReceipt(Receipt(**fields), public_key)


def _canonical(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def _each_key_once(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    # Of two values of one name, one reader would take the first and another the last.
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name appears twice")
    return found
