"""Messages as JSON for programs: field names as in the protos, enums by their short value, numbers as numbers."""

from __future__ import annotations

from typing import Any

from google.protobuf import symbol_database
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

_WIDE_INTEGERS = {
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_UINT64,
    FieldDescriptor.TYPE_SINT64,
    FieldDescriptor.TYPE_FIXED64,
    FieldDescriptor.TYPE_SFIXED64,
}


def json_form(message: Message) -> dict[str, Any]:
    """Every field, defaults too; those with presence only when they are there."""
    values: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return _tidy(values, message.DESCRIPTOR)


def short_name(enum: EnumDescriptor, number: int) -> str:
    """`JOB_STATE_QUEUED` is shown as `queued`; the zero value as ""."""
    if number == 0:
        return ""
    value = enum.values_by_number.get(number)
    return _short(enum, value.name) if value is not None else str(number)


def numbers_by_short_name(enum: EnumDescriptor) -> dict[str, int]:
    """What people may type for an enum."""
    return {_short(enum, v.name): v.number for v in enum.values if v.number != 0}


def _prefix(enum: EnumDescriptor) -> str:
    zero: str = enum.values_by_number[0].name
    return zero.removesuffix("UNSPECIFIED")


def _short(enum: EnumDescriptor, name: str) -> str:
    return name.removeprefix(_prefix(enum)).lower()


def _tidy(values: dict[str, Any], descriptor: Any) -> dict[str, Any]:
    if descriptor.full_name == "google.protobuf.Any" and "@type" in values:
        packed = symbol_database.Default().pool.FindMessageTypeByName(values["@type"].rpartition("/")[2])
        return _tidy(values, packed)
    if descriptor.full_name.startswith("google.protobuf."):
        return values
    for field in descriptor.fields:
        if field.name not in values:
            continue
        value = values[field.name]
        if isinstance(value, list):
            values[field.name] = [_value(item, field) for item in value]
        else:
            values[field.name] = _value(value, field)
    return values


def _value(value: Any, field: FieldDescriptor) -> Any:
    if field.type == FieldDescriptor.TYPE_ENUM and isinstance(value, str):
        enum: EnumDescriptor = field.enum_type
        number = enum.values_by_name[value].number
        return short_name(enum, number)
    if field.type in _WIDE_INTEGERS and isinstance(value, str):
        return int(value)
    if field.type == FieldDescriptor.TYPE_MESSAGE and isinstance(value, dict):
        return _tidy(value, field.message_type)
    return value
