from __future__ import annotations

import json
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.secrets import file_format
from services.secrets.file_errors import FormatError, KeyMismatchError, OtherVersionError
from services.secrets.file_header import Header
from services.secrets.secret_id import DEFAULT_SERVICE, SecretId
from services.secrets.secret_text import SecretText

KEY = bytearray(range(32))
SALT = bytes(range(16))
HEADER = Header(1, SALT)
LIMS = SecretId(DEFAULT_SERVICE, "lims")
names_and_values = st.dictionaries(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))


@given(names_and_values)
def test_what_is_encoded_is_decoded(entries: dict[str, str]) -> None:
    data = file_format.encode({SecretId(DEFAULT_SERVICE, n): SecretText(v) for n, v in entries.items()}, KEY, HEADER)
    envelope = file_format.decode_envelope(data)
    assert envelope.header == HEADER
    assert {n.username: v.reveal() for n, v in file_format.decrypt(envelope, KEY).items()} == entries


@given(
    st.binary() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda v: json.dumps(v).encode())
)
def test_any_other_bytes_are_a_format_error(data: bytes) -> None:
    with pytest.raises((FormatError, OtherVersionError)):
        file_format.decode_envelope(data)


@given(st.data())
def test_no_altered_byte_goes_unnoticed(data: st.DataObject) -> None:
    whole = file_format.encode({LIMS: SecretText("value")}, KEY, HEADER)
    position = data.draw(st.integers(0, len(whole) - 1))
    altered = bytearray(whole)
    altered[position] ^= data.draw(st.integers(1, 255))
    try:
        envelope = file_format.decode_envelope(bytes(altered))
        if envelope.header == HEADER:
            # Base64 has spellings of the same bytes: what still opens holds what was put in.
            assert file_format.decrypt(envelope, KEY)[LIMS].reveal() == "value"
    except (FormatError, OtherVersionError, KeyMismatchError):
        pass


@pytest.mark.parametrize("version", ["3", "0", '"1"', "1.5", "null", "99999999999"])
def test_other_versions_are_told_apart_from_damage(version: str) -> None:
    with pytest.raises(OtherVersionError):
        file_format.decode_envelope(f'{{"version": {version}, "anything": 1}}'.encode())


def test_another_key_does_not_open_it() -> None:
    envelope = file_format.decode_envelope(file_format.encode({}, KEY, HEADER))
    with pytest.raises(KeyMismatchError):
        file_format.decrypt(envelope, bytearray(32))


def test_what_is_inside_is_never_quoted() -> None:
    from base64 import urlsafe_b64encode

    from cryptography.fernet import Fernet

    token = Fernet(urlsafe_b64encode(KEY)).encrypt(b'{"lims": ["canary"]}')
    with pytest.raises(FormatError) as caught:
        file_format.decrypt(file_format.Envelope(HEADER, token), KEY)
    assert "canary" not in "".join(traceback.format_exception(caught.value))


def test_a_secret_does_not_show_itself() -> None:
    secret = SecretText("canary")
    for shown in (repr(secret), str(secret), f"{secret}", f"{[secret]}", f"{file_format.Envelope(HEADER, b'canary')}"):
        assert "canary" not in shown
    with pytest.raises(TypeError):
        __import__("pickle").dumps(secret)


def test_the_key_is_argon2id_with_the_published_parameters() -> None:
    from argon2.low_level import Type, hash_secret_raw

    expected = hash_secret_raw("pässword".encode(), SALT, 3, 65536, 4, 32, Type.ID)
    assert file_format.derive_key(SecretText("pässword"), HEADER) == expected
