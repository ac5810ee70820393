"""Random requests by their descriptors: every kind of field, unset, plausible, or as odd as the wire allows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

_ODD_TEXTS = (
    "",
    " ",
    "\0",
    "a\0b",
    "..",
    "../../../etc/passwd",
    "/etc/passwd",
    "..\\..\\windows",
    "%2e%2e%2f",
    "\u202e\u2066",
    "\u2024\u2024\u2215",
    "\r\n\x1b[31m",
    "\ufeff",
    "\uffff",
    "\U0001f52c",
    "e\u0301",
    "'; DROP TABLE jobs; --",
    "{{ marker }}",
    "<b>%s%n</b>",
    "é" * 2_000,
    "\U0001f52c" * 5_000,
    "a/" * 3_000,
    "x" * 200_000,
)
_INT32, _INT64 = 2**31, 2**63
_WIDTHS = {
    FieldDescriptor.CPPTYPE_INT32: (-_INT32, _INT32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-_INT64, _INT64 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2 * _INT32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2 * _INT64 - 1),
}


_DEPTH = 4
"""So deep messages lie in each other; some types hold themselves."""


def messages(descriptor: Descriptor, plausible: Sequence[str], depth: int = _DEPTH) -> st.SearchStrategy[Message]:
    """`plausible`: texts that mean something to the service, so that not everything ends at the first check."""
    fields = {
        field.name: _values(field, plausible, depth)
        for field in descriptor.fields
        if depth or field.cpp_type != FieldDescriptor.CPPTYPE_MESSAGE
    }
    return st.fixed_dictionaries({}, optional=fields).map(partial(_message, descriptor))


def _message(descriptor: Descriptor, fields: dict[str, Any]) -> Message:
    # Of a oneof the last one counts, as on the wire.
    return message_factory.GetMessageClass(descriptor)(**fields)


def _values(field: FieldDescriptor, plausible: Sequence[str], depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = (_value(part, plausible, depth - 1) for part in field.message_type.fields)
        return st.dictionaries(key, value, max_size=4)
    one = _value(field, plausible, depth)
    return st.lists(one, max_size=4) if field.is_repeated else one


def _value(field: FieldDescriptor, plausible: Sequence[str], depth: int) -> st.SearchStrategy[Any]:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_MESSAGE:
        return messages(field.message_type, plausible, max(0, depth - 1))
    if kind == FieldDescriptor.CPPTYPE_STRING and field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=100)
    if kind == FieldDescriptor.CPPTYPE_STRING:
        likely, odd = st.sampled_from(plausible), st.sampled_from(_ODD_TEXTS)
        anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
        return likely | odd | st.tuples(likely, odd).map("/".join) | anything
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return st.sampled_from([*field.enum_type.values_by_number, -1, 999, _INT32 - 1, -_INT32])
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return st.floats(width=32)
    least, most = _WIDTHS[kind]
    return st.sampled_from([0, 1, 2, 100, least, most]) | st.integers(least, most)
