"""`readme_fields.json`: what people filled in about a project or run, in layers (FORMATS §5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from libs.run_tree.json_value import JsonValue, NotJsonError, decode_json

README_FIELDS_NAME = "readme_fields.json"
_VERSION = "1.1"
_LAYERS = ("core_fields", "template_fields", "config_fields")


class ReadmeFieldsError(ValueError):
    """The file is no readable JSON object, or of a major version that isn't known."""


@dataclass(frozen=True, slots=True)
class ReadmeFields:
    """The layers in which a field may stand; the first that has the key speaks for it."""

    layers: tuple[Mapping[str, JsonValue], ...] = field(hash=False)

    def is_filled(self, field_id: str) -> bool:
        """False when the field is absent, null, or empty."""
        for layer in self.layers:
            if field_id in layer:
                value = layer[field_id]
                return value is not None and value != "" and value != [] and value != {} and not _is_blank(value)
        return False


def readme_fields_of(document: Mapping[str, JsonValue]) -> ReadmeFields:
    """The layers of a decoded document; one that is absent, or no object, is empty."""
    found = (document.get(name) for name in _LAYERS)
    return ReadmeFields(tuple(layer if isinstance(layer, dict) else {} for layer in found))


def parse_readme_fields(content: bytes) -> ReadmeFields:
    """The fields in these bytes. ReadmeFieldsError."""
    try:
        document = decode_json(content)
    except NotJsonError as error:
        raise ReadmeFieldsError(f"readme_fields.json is no readable JSON: {error}") from error
    if not isinstance(document, dict):
        raise ReadmeFieldsError("readme_fields.json holds no JSON object")
    version = document.get("schema_version", _VERSION)
    if not isinstance(version, str) or version.partition(".")[0] != _VERSION.partition(".")[0]:
        # One without a version was written by hand; its layers mean what they say.
        raise ReadmeFieldsError(f"readme_fields.json has schema_version {str(version)[:80]!r}")
    return readme_fields_of(document)


def _is_blank(value: JsonValue) -> bool:
    return isinstance(value, str) and not value.strip()
