from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.secrets import file_format
from services.secrets.file_errors import FormatError, KeyMismatchError, OtherVersionError
from services.secrets.file_header import Header
from services.secrets.secret_id import SecretId
from services.secrets.secret_text import SecretText

KEY = bytearray(range(32))
HEADER = Header(2, bytes(range(16)), time_cost=4, memory_kib=32_768, parallelism=2)
LIMS = SecretId("plate-reader", "lims")
texts = st.text(st.characters(codec="utf-8"))


@given(st.dictionaries(st.builds(SecretId, texts, texts), texts))
def test_what_is_encoded_is_decoded_with_its_services_and_parameters(entries: dict[SecretId, str]) -> None:
    data = file_format.encode({n: SecretText(v) for n, v in entries.items()}, KEY, HEADER)
    envelope = file_format.decode_envelope(data)
    assert envelope.header == HEADER
    assert {n: v.reveal() for n, v in file_format.decrypt(envelope, KEY).items()} == entries


def test_version_1_has_no_place_for_another_service() -> None:
    with pytest.raises(ValueError, match="other services"):
        file_format.encode({LIMS: SecretText("value")}, KEY, Header(1, HEADER.salt))


@given(st.data())
def test_no_altered_byte_goes_unnoticed(data: st.DataObject) -> None:
    whole = file_format.encode({LIMS: SecretText("value")}, KEY, HEADER)
    position = data.draw(st.integers(0, len(whole) - 1))
    altered = bytearray(whole)
    altered[position] ^= data.draw(st.integers(1, 255))
    try:
        envelope = file_format.decode_envelope(bytes(altered))
        assert envelope.header == HEADER
        assert file_format.decrypt(envelope, KEY)[LIMS].reveal() == "value"
    except (FormatError, OtherVersionError, KeyMismatchError):
        pass


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("time_cost", 5),
        ("time_cost", 0),
        ("memory_kib", 65_536),
        ("memory_kib", 1 << 40),
        ("parallelism", 99),
        ("salt", "AAAAAAAAAAAAAAAAAAAAAA=="),
        ("name", "scrypt"),
    ],
)
def test_altered_parameters_are_damage(name: str, value: object) -> None:
    document = json.loads(file_format.encode({}, KEY, HEADER))
    document["kdf"][name] = value
    with pytest.raises(FormatError):
        file_format.decode_envelope(json.dumps(document).encode())


def test_the_header_is_authenticated_by_the_key() -> None:
    sealed = file_format.decode_envelope(file_format.encode({}, KEY, HEADER)).token
    forged = file_format.Envelope(Header(2, HEADER.salt, time_cost=1), sealed)
    with pytest.raises(KeyMismatchError):
        file_format.decrypt(forged, KEY)
