"""When a staged run is all there: its signal is given, and nothing changes any more (SPEC §8). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from labferry.sync.v1 import staging_service_pb2
from libs.run_tree.completeness_manifest import (
    CompletenessManifestError,
    leads_out,
    not_yet_there,
    parse_completeness_manifest,
)
from libs.run_tree.json_value import JsonValue
from libs.service_kit.enum_names import ProtoNames
from libs.service_kit.equipment_settings import CompletenessSignal, EquipmentSettings

SIGNALS = ProtoNames(CompletenessSignal, staging_service_pb2.CompletenessSignal, "COMPLETENESS_SIGNAL")

_MOST_NAMED = 3
_QUIET_PERIODS = 10
"""A run that isn't complete and didn't change for so many settle times is stalled."""


@dataclass(frozen=True, slots=True)
class Signal:
    """What says that a run is complete, and the name of that file relative to the run."""

    kind: CompletenessSignal
    file_name: str


def configured_signal(equipment: EquipmentSettings) -> Signal:
    if equipment.completeness_signal is CompletenessSignal.MANIFEST:
        return Signal(CompletenessSignal.MANIFEST, equipment.manifest_filename)
    return Signal(CompletenessSignal.SENTINEL_FILE, equipment.sentinel_filename)


def signal_of_block(orchestrator: Mapping[str, JsonValue]) -> Signal | None:
    """What a run's own orchestrator block says; None when it names no usable signal."""
    for kind, key in (
        (CompletenessSignal.SENTINEL_FILE, "sentinel_filename"),
        (CompletenessSignal.MANIFEST, "manifest_filename"),
    ):
        name = orchestrator.get(key)
        if orchestrator.get("completeness_signal") == kind.value and isinstance(name, str) and not leads_out(name):
            return Signal(kind, name)
    return None


@dataclass(frozen=True, slots=True)
class Arrival:
    """A run as one look found it: a fingerprint of everything in it, the sizes of its files by path, its data files
    without the cache folder, and what the manifest holds (None: it isn't there, or can't be read)."""

    fingerprint: str
    sizes: Mapping[str, int] = field(hash=False)
    file_count: int
    byte_count: int
    manifest: bytes | None = None


def what_is_missing(signal: Signal | None, arrival: Arrival) -> str:
    """What keeps the signal from being given, one plain sentence; empty when it is given."""
    if signal is None:
        return "Neither the configuration nor creation.json says what makes it complete."
    if signal.kind is CompletenessSignal.SENTINEL_FILE:
        return "" if signal.file_name in arrival.sizes else f"There is no {signal.file_name}."
    if arrival.manifest is None:
        return f"There is no {signal.file_name}."
    try:
        expected = parse_completeness_manifest(arrival.manifest)
    except CompletenessManifestError as error:
        return f"{signal.file_name} can't be used: {error}."
    missing = not_yet_there(expected, arrival.sizes)
    if not missing:
        return ""
    more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
    named = ", ".join(missing[:_MOST_NAMED])
    return f"Of the {len(expected)} files in {signal.file_name}, {named}{more} are not there with their size."


@dataclass(slots=True)
class Settling:
    """Since when a run's fingerprint has been the same, on a clock that nobody can set."""

    settle_seconds: float
    _fingerprint: str = ""
    _since: float = 0.0
    _moved: bool = False
    _looks: int = 0

    def look(self, fingerprint: str, now: float) -> None:
        """`now` in seconds of that clock."""
        self._moved = bool(self._looks) and fingerprint != self._fingerprint
        if fingerprint != self._fingerprint:
            self._fingerprint, self._since, self._looks = fingerprint, now, 0
        self._looks += 1

    def has_moved(self) -> bool:
        """Whether the last look found something else than the look before it."""
        return self._moved

    def is_settled(self, now: float) -> bool:
        """Whether nothing changed for the settle time."""
        return now - self._since >= self.settle_seconds

    def is_stalled(self, now: float) -> bool:
        """Whether nothing changed for so long that nothing more is to be expected."""
        return self._looks > 1 and now - self._since >= _QUIET_PERIODS * self.settle_seconds
