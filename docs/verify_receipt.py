"""Checks a Labferry receipt against a run's folder, without Labferry: Python's standard library and `cryptography`.

    python3 verify_receipt.py RECEIPT.json RUN_FOLDER [PUBLIC_KEY.pub]

Prints what doesn't fit and ends with 1, or with 0 when all fits. Without a public key from elsewhere, a receipt that
somebody else signed passes too: compare the key that is printed. What a receipt doesn't list, as symlinks, is counted.
"""

import hashlib
import json
import os
import re
import stat
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

LINE = re.compile(rb"(\\?)([0-9a-f]{64})  (.+)\n", re.DOTALL)
MANIFEST = b".exlab-wizard/checksums.sha256"
ESCAPES = {b"\\\\": b"\\", b"\\n": b"\n", b"\\r": b"\r"}


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


def checked_receipt(path, trusted):
    """The receipt's object, its signature checked."""
    with open(path, "rb") as file:
        content = file.read()
    try:
        receipt = json.loads(content.decode(), object_pairs_hook=once)
        if receipt["layout"] != "labferry.receipt.v1":
            fail("layout", f"is {receipt['layout']!r}")
        unsigned = {name: value for name, value in receipt.items() if name != "signature"}
        signed = json.dumps(unsigned, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(receipt["public_key"]))
        key.verify(bytes.fromhex(receipt["signature"]), signed)
        here = [c for c in receipt["copies"] if c["destination"] == receipt["destination"] and c["grade"] >= "E4"]
        if not any(c["expected"] == c["hashed"] == c["matched"] > 0 for c in here):
            fail("copies", "none at the receipt's destination was read back whole")
    except InvalidSignature:
        fail("signature", "does not fit: the receipt was changed after it was signed")
    except (ValueError, KeyError, TypeError) as error:
        fail("format", f"is no receipt: {error!r}")
    if trusted is not None:
        with open(trusted, "rb") as file:
            mine = serialization.load_pem_public_key(file.read()).public_bytes_raw()
        if mine.hex() != receipt["public_key"]:
            fail("public_key", "is not the one that was given")
    return receipt


def opened(folder, path):
    """A plain file below an open folder; no symlink is followed on the way. OSError."""
    step, _, below = path.partition(b"/")
    descriptor = os.open(step, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    if not below and stat.S_ISREG(os.fstat(descriptor).st_mode):
        return open(descriptor, "rb")
    try:
        return opened(descriptor, below)
    finally:
        os.close(descriptor)


def size_if_same(folder, path, digest):
    """The file's size; None when it isn't there, is no plain file, or holds something else."""
    try:
        with opened(folder, path) as file:
            same = hashlib.file_digest(file, "sha256").hexdigest() == digest
            return os.fstat(file.fileno()).st_size if same else None
    except OSError:
        return None


def main(receipt_file, run, trusted=None):
    receipt, run, beside = checked_receipt(receipt_file, trusted), os.fsencode(run), 0
    root = os.open(run, os.O_RDONLY)
    if size_if_same(root, MANIFEST, receipt["manifest_sha256"]) is None:
        fail("manifest_sha256", "is not that of .exlab-wizard/checksums.sha256")
    sizes = {}
    for line in opened(root, MANIFEST):
        escaped, digest, name = (LINE.fullmatch(line) or fail("checksums.sha256", "is no manifest")).groups()
        name = re.sub(rb"\\.", lambda found: ESCAPES[found.group()], name) if escaped else name
        sizes[name] = size_if_same(root, name, digest.decode())
        if sizes[name] is None:
            say(f"{name.decode(errors='replace')}: is missing or has another content")
    if None in sizes.values():
        sys.exit(1)
    for field, found in (("file_count", len(sizes)), ("byte_count", sum(sizes.values()))):
        if receipt[field] != found:
            fail(field, f"is {receipt[field]}; the folder has {found}")
    for place, folders, names in os.walk(run):
        folders[:] = [name for name in folders if (place, name) != (run, b".exlab-wizard")]
        names += [name for name in folders if os.path.islink(os.path.join(place, name))]
        beside += sum(os.path.relpath(os.path.join(place, name), run) not in sizes for name in names)
    said = f"valid: {len(sizes)} files of {receipt['run']}, {beside} beside them, signed with {receipt['public_key']}"
    say(said, sys.stdout)


main(*sys.argv[1:])
