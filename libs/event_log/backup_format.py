"""What a backup holds: one tar file of these entries, in this order.

manifest.json            what it is a backup of
checkpoint.json          a checkpoint of its last position, where the service signs any
events/00000001.jsonl …  the events as in an export, oldest first
blobs/<sha256> …         each behind the first file of events that names it
requests/00000001.jsonl … the requests that were answered
SHA256SUMS               of all entries above that aren't blobs, as sha256sum writes it
"""

from __future__ import annotations

import msgspec

from libs.event_log.store import RequestKey, RequestRecord

LAYOUT = "labferry.backup.v1"
MANIFEST = "manifest.json"
CHECKPOINT = "checkpoint.json"
EVENTS = "events/"
BLOBS = "blobs/"
REQUESTS = "requests/"
SUMS = "SHA256SUMS"


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an archive is a backup of. `head_hash`: lower-case hex; `made_time`: RFC 3339, UTC."""

    layout: str = LAYOUT
    store_id: str
    service: str
    version: str
    head_position: int
    head_hash: str
    made_time: str


class _Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    actor: str
    method: str
    request_id: str
    body_digest: str
    first_position: int
    last_position: int


def numbered(prefix: str, number: int) -> str:
    """Name of a file of events or requests, from 1."""
    return f"{prefix}{number:08}.jsonl"


def request_line(record: RequestRecord) -> bytes:
    key = record.request
    digest = key.body_digest.hex()
    line = _Request(key.actor, key.method, key.request_id, digest, record.first_position, record.last_position)
    return msgspec.json.encode(line) + b"\n"


def request_from_line(line: bytes) -> RequestRecord:
    """msgspec.DecodeError or ValueError for anything else."""
    read = msgspec.json.decode(line, type=_Request)
    key = RequestKey(read.actor, read.method, read.request_id, bytes.fromhex(read.body_digest))
    return RequestRecord(key, read.first_position, read.last_position)
