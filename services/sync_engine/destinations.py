"""Opens the destinations that the configuration names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import time
from functools import partial
from pathlib import Path

from libs.service_kit.equipment_settings import Bandwidth as BandwidthSettings
from libs.service_kit.equipment_settings import (
    EquipmentSettings,
    MountedTransportSettings,
    RcloneTransportSettings,
    RsyncSshTransportSettings,
    Weekday,
)
from libs.service_kit.settings import VerifySettings
from libs.service_kit.telemetry import Logger
from libs.service_kit.work_threads import WorkThreads
from services.sync_engine.copies_apart import CopiesApart
from services.sync_engine.transfer.bandwidth import Bandwidth, BandwidthBrake, BandwidthWindow
from services.sync_engine.transfer.destination import Destination
from services.sync_engine.transfer.far_side import FarPlace
from services.sync_engine.transfer.mounted import MountedTransport
from services.sync_engine.transfer.rclone_place import RclonePlace
from services.sync_engine.transfer.rclone_remote import RcloneRemote
from services.sync_engine.transfer.rclone_start import ConfigPassword
from services.sync_engine.transfer.remote_transport import RemoteTransport
from services.sync_engine.transfer.rsync_far import RsyncPlace
from services.sync_engine.transfer.second_process.process import SecondProcess
from services.sync_engine.transfer.ssh_session import SshAccess
from services.sync_engine.transfer.tools import RCLONE, RSYNC, SSH, Toolbox
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import TransferError, Transport

LendSecret = Callable[[str, TransferControl], AbstractContextManager[str]]
_DAYS = {day: number for number, day in enumerate(Weekday)}


def open_destinations(
    equipment: Sequence[EquipmentSettings],
    used_before: Collection[tuple[str, str]],
    verify: VerifySettings,
    lend: LendSecret,
    apart: CopiesApart,
    second: SecondProcess,
) -> Mapping[str, Sequence[Destination]]:
    """Each equipment's destinations, in the order of the configuration. Touches no disk.

    `used_before` holds (equipment, destination) of those that a job was begun to: an empty folder in their place is a
    mount point without its mount. `lend` gives `nas:<EQUIPMENT_ID>` to a transport that needs it. `apart` is asked
    before each use of a mounted one; `second` helps them all.
    """
    boxes = {"rclone": Toolbox((RCLONE,)), "rsync_ssh": Toolbox((RSYNC, SSH))}
    return {
        e.id: tuple(
            Destination(
                d.name,
                d.required,
                d.transport.type,
                _open(
                    d.transport,
                    boxes,
                    (e.id, d.name) in used_before,
                    verify.max_stream_bytes,
                    partial(lend, f"nas:{e.id}"),
                    partial(apart.refuse_overlap, e.id, d.name),
                    second,
                ),
                None if isinstance(d.transport, MountedTransportSettings) else verify.max_stream_bytes,
            )
            for d in e.all_destinations()
        )
        for e in equipment
    }


def _open(
    settings: MountedTransportSettings | RcloneTransportSettings | RsyncSshTransportSettings,
    boxes: Mapping[str, Toolbox],
    used_before: bool,
    max_stream_bytes: int,
    password: ConfigPassword,
    refuse_overlap: Callable[[Path, int], None],
    second: SecondProcess,
) -> Transport:
    bandwidth = _bandwidth(settings.bandwidth)
    match settings:
        case MountedTransportSettings():
            return MountedTransport(
                settings.path,
                bandwidth=bandwidth,
                used_before=used_before,
                refuse_overlap=refuse_overlap,
                second=second,
            )
        case RcloneTransportSettings():
            remote = RcloneRemote(settings.rclone_remote, settings.rclone_remote_path, settings.rclone_config, password)
            tools = boxes[settings.type]
            place: FarPlace = RclonePlace(remote, tools=tools, bandwidth=bandwidth)
        case RsyncSshTransportSettings():
            access = SshAccess(settings.ssh_target, settings.ssh_key_path, settings.ssh_port, settings.known_hosts)
            tools = boxes[settings.type]
            place = RsyncPlace(access, settings.remote_path, tools=tools, bandwidth=bandwidth)
    return RemoteTransport(place, max_stream_bytes=max_stream_bytes, used_before=used_before)


async def report_missing_tools(
    destinations: Mapping[str, Sequence[Destination]], threads: WorkThreads, logger: Logger
) -> None:
    """Looks for the programs that the configured kinds of transport call, and logs an error for each kind that can't
    work; the others can."""
    by_kind: dict[str, dict[str, Destination]] = {}
    for equipment_id, places in destinations.items():
        for place in places:
            by_kind.setdefault(place.kind, {})[f"{equipment_id}/{place.name}"] = place
    for kind, of_kind in by_kind.items():
        try:
            await threads.run(next(iter(of_kind.values())).transport.require_tools)
        except TransferError as error:
            logger.error("transport_unusable", transport=kind, problem=error.message, destinations=sorted(of_kind))


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
