"""Checks a Labferry receipt against a run's folder, without Labferry: Python's standard library and `cryptography`.

    python3 verify_receipt.py RECEIPT.json RUN_FOLDER [PUBLIC_KEY.pub]

Prints what doesn't fit and ends with status 1; ends with 0 when everything fits. Without a public key that you got from
somewhere else, a receipt that somebody else signed passes too: compare the key that is printed.
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

LINE = re.compile(rb"(\\?)([0-9a-f]{64})  (.+)", re.DOTALL)
ESCAPES = {b"\\\\": b"\\", b"\\n": b"\n", b"\\r": b"\r"}


def fail(what, problem):
    sys.exit(f"{what}: {problem}")


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


def manifest_entries(content):
    """Path and SHA-256 of each file, as sha256sum writes them."""
    for line in content.split(b"\n")[:-1]:
        shape = LINE.fullmatch(line) or fail("checksums.sha256", "is no manifest")
        escaped, digest, name = shape.groups()
        if escaped:
            name = re.sub(rb"\\.", lambda found: ESCAPES[found.group()], name)
        yield name, digest.decode()


def size_if_same(path, digest):
    """The file's size; None when it isn't there, is no plain file, or holds something else."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        found = hashlib.sha256()
        while block := file.read(1 << 20):
            found.update(block)
        return os.fstat(descriptor).st_size if found.hexdigest() == digest else None


def main(receipt_file, run, trusted=None):
    receipt = checked_receipt(receipt_file, trusted)
    with open(os.path.join(run, ".exlab-wizard", "checksums.sha256"), "rb") as file:
        manifest = file.read()
    if hashlib.sha256(manifest).hexdigest() != receipt["manifest_sha256"]:
        fail("manifest_sha256", "is not that of .exlab-wizard/checksums.sha256")
    files = list(manifest_entries(manifest))
    sizes = {name: size_if_same(os.path.join(os.fsencode(run), name), digest) for name, digest in files}
    wrong = [name.decode(errors="replace") for name, size in sizes.items() if size is None]
    if wrong:
        sys.exit("\n".join(f"{name}: is missing or has another content" for name in wrong))
    for field, found in (("file_count", len(files)), ("byte_count", sum(sizes.values()))):
        if receipt[field] != found:
            fail(field, f"is {receipt[field]}; the folder has {found}")
    sys.stdout.write(f"valid: {len(files)} files of {receipt['run']}, signed with {receipt['public_key']}\n")


main(*sys.argv[1:])
