"""Checks a Labferry receipt against a run's folder, without Labferry: Python's standard library and `cryptography`.

    python3 verify_receipt.py RECEIPT.json RUN_FOLDER [PUBLIC_KEY.pub]

Prints what doesn't fit and ends with 1, or with 0 when all fits. Without a public key from elsewhere, a receipt that
somebody else signed passes too: compare the key that is printed, the first 16 digits of its SHA-256, with the name of
the service's `checkpoint-….pub`. What a receipt doesn't list, as symlinks, is counted.
"""

import hashlib
import json
import os
import re
import sys
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

LINE = re.compile(rb"(\\?)([0-9a-f]{64})  (?:\./(?=-\n))?(.+)\n", re.DOTALL)
ESCAPES = {b"\\\\": b"\\", b"\\n": b"\n", b"\\r": b"\r"}
TEXTS = "layout run equipment_id destination job_id issued_time manifest_sha256 log_id public_key signature"
COPY_TEXTS = "destination transport job_id grade method host note verified_time evidence_sha256 log_hash"


def say(line, to=sys.stderr):
    # A name could rewrite the terminal: what isn't printable is escaped.
    to.write("".join(c if c.isprintable() else repr(c)[1:-1] for c in line) + "\n")


def fail(what, problem):
    say(f"{what}: {problem}")
    sys.exit(1)


def once(pairs):
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a name appears twice")
    return dict(pairs)


def require(kind, names, found):
    for name in names:
        if type(found[name]) is not kind:
            raise TypeError(f"{name} is no {kind.__name__}")


def checked_receipt(content, trusted):
    """The receipt's object, its signature checked."""
    try:
        receipt = json.loads(content.decode(), object_pairs_hook=once)
        require(str, TEXTS.split(), receipt)
        require(int, ("amendment", "file_count", "byte_count"), receipt)
        require(list, ["copies"], receipt)
        require(dict, ["tools"], receipt)
        require(str, receipt["tools"], receipt["tools"])
        for copy in receipt["copies"]:
            require(str, COPY_TEXTS.split(), copy)
            require(int, ("expected", "hashed", "matched", "log_position"), copy)
        if receipt["layout"] != "labferry.receipt.v1":
            fail("layout", f"is {receipt['layout']!r}")
        signature = bytes.fromhex(receipt.pop("signature"))
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(receipt["public_key"]))
        key.verify(signature, json.dumps(receipt, sort_keys=True, separators=(",", ":")).encode("ascii"))
    except InvalidSignature:
        fail("signature", "does not fit: the receipt was changed after it was signed")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        fail("format", f"is no receipt: {error!r}")
    if trusted and serialization.load_pem_public_key(trusted[0]) != key:
        fail("public_key", "is not the one that was given")
    here = [c for c in receipt["copies"] if c["destination"] == receipt["destination"] and c["grade"] in ("E4", "E5")]
    if not any(receipt["file_count"] == c["expected"] == c["hashed"] == c["matched"] > 0 for c in here):
        fail("copies", "none at the receipt's destination was read back whole")
    return receipt


def opened(run, path):
    """A plain file below a real folder; no symlink is followed on the way. OSError."""
    place = run + b"/" + path
    if os.path.realpath(place) != place or not os.path.isfile(place):
        raise FileNotFoundError(f"{os.fsdecode(place)} is no plain file")
    return open(place, "rb")


def main(receipt_file, run, *trusted):
    content, *trusted = (Path(path).read_bytes() for path in (receipt_file, *trusted))
    receipt, run = checked_receipt(content, trusted), os.path.realpath(os.fsencode(run))
    sizes, found, beside = {}, [], 0
    manifest = opened(run, b".exlab-wizard/checksums.sha256")
    if hashlib.file_digest(manifest, "sha256").hexdigest() != receipt["manifest_sha256"]:
        fail("manifest_sha256", "is not that of .exlab-wizard/checksums.sha256")
    manifest.seek(0)
    for line in manifest:
        escaped, digest, name = (LINE.fullmatch(line) or fail("checksums.sha256", "is no manifest")).groups()
        name = re.sub(rb"\\.?", lambda escape: ESCAPES[escape.group()], name) if escaped else name
        sizes[name] = None
        with suppress(OSError), opened(run, name) as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == digest.decode():
                sizes[name] = os.fstat(file.fileno()).st_size
        if sizes[name] is None:
            say(f"{name.decode(errors='replace')}: is missing or has another content")
        found.append(sizes[name])
    if None in sizes.values():
        sys.exit(1)
    for field, number in (("file_count", len(found)), ("byte_count", sum(found))):
        if receipt[field] != number:
            fail(field, f"is {receipt[field]}; the folder has {number}")
    for place, folders, names in os.walk(run):
        folders[:] = [name for name in folders if (place, name) != (run, b".exlab-wizard")]
        names += [name for name in folders if os.path.islink(os.path.join(place, name))]
        beside += sum(os.path.relpath(os.path.join(place, name), run) not in sizes for name in names)
    key = hashlib.sha256(bytes.fromhex(receipt["public_key"])).hexdigest()[:16]
    say(f"valid: {len(found)} files of {receipt['run']}, {beside} beside them, signed with the key {key}", sys.stdout)


try:
    main(*sys.argv[1:])
except (OSError, ValueError, KeyError, TypeError, UnsupportedAlgorithm) as error:
    fail("can't be checked", error)
