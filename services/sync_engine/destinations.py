"""Opens the destinations that the configuration names."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import time

from libs.service_kit.settings import Bandwidth as BandwidthSettings
from libs.service_kit.settings import EquipmentSettings, Weekday
from services.sync_engine.transfer.bandwidth import Bandwidth, BandwidthBrake, BandwidthWindow
from services.sync_engine.transfer.destination import Destination
from services.sync_engine.transfer.mounted import MountedTransport

_DAYS = {day: number for number, day in enumerate(Weekday)}


def open_destinations(
    equipment: Sequence[EquipmentSettings], used_before: Collection[tuple[str, str]]
) -> Mapping[str, Sequence[Destination]]:
    """Each equipment's destinations, in the order of the configuration. Touches no disk.

    `used_before` holds (equipment, destination) of those that a job was begun to: an empty folder in their place is a
    mount point without its mount.
    """
    return {
        e.id: tuple(
            Destination(
                d.name,
                d.required,
                d.transport.type,
                MountedTransport(
                    d.transport.path,
                    bandwidth=_bandwidth(d.transport.bandwidth),
                    used_before=(e.id, d.name) in used_before,
                ),
            )
            for d in e.all_destinations()
        )
        for e in equipment
    }


def open_brakes(equipment: Sequence[EquipmentSettings]) -> Mapping[tuple[str, str], BandwidthBrake]:
    """By (equipment, destination): what keeps the reading back of its copies within its bandwidth."""
    return {
        (e.id, d.name): BandwidthBrake(_bandwidth(d.transport.bandwidth))
        for e in equipment
        for d in e.all_destinations()
    }


def _bandwidth(settings: BandwidthSettings) -> Bandwidth:
    windows = (
        BandwidthWindow(
            days=frozenset(_DAYS[day] for day in w.days),
            begin=time.fromisoformat(w.from_),
            end=time.fromisoformat(w.to),
        )
        for w in settings.schedule
    )
    return Bandwidth(settings.upload_mbps, tuple(windows))
