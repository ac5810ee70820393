"""labferry.sync.v1.EquipmentService: translation between protobuf and the equipment."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from google.protobuf.timestamp_pb2 import Timestamp

from labferry.sync.v1 import equipment_service_pb2 as pb
from labferry.sync.v1 import equipment_service_pb2_grpc
from libs.service_kit.identity import OPERATORS, READERS
from libs.service_kit.server import PublishedService
from services.sync_engine.equipment.pause_command import PauseEquipment
from services.sync_engine.equipment.status import DestinationStatus, EquipmentStatus, EquipmentStatuses
from services.sync_engine.jobs.job import JOB_STATES
from services.sync_engine.requests import Fields, cause
from services.sync_engine.targets.keeper import TargetKeeper, probe_message, tool_messages

if TYPE_CHECKING:
    from grpc.aio import ServicerContext

    Context = ServicerContext[Any, Any]


_MOST_DOUBTED = 100


class EquipmentServicer(equipment_service_pb2_grpc.EquipmentServiceServicer):
    """Shows equipment, and holds it."""

    def __init__(self, statuses: EquipmentStatuses, pause: PauseEquipment, targets: TargetKeeper) -> None:
        self._statuses = statuses
        self._pause = pause
        self._targets = targets

    async def ListEquipment(self, request: pb.ListEquipmentRequest, context: Context) -> pb.ListEquipmentResponse:
        return pb.ListEquipmentResponse(equipment=[_equipment(e) for e in await self._statuses.all()])

    async def GetEquipment(self, request: pb.GetEquipmentRequest, context: Context) -> pb.Equipment:
        fields = Fields()
        fields.equipment(request.equipment_id)
        fields.done()
        return _equipment(await self._statuses.one(request.equipment_id))

    async def PauseEquipment(self, request: pb.PauseEquipmentRequest, context: Context) -> pb.Equipment:
        return await self._set(request.equipment_id, request.reason, paused=True)

    async def ResumeEquipment(self, request: pb.ResumeEquipmentRequest, context: Context) -> pb.Equipment:
        return await self._set(request.equipment_id, request.reason, paused=False)

    async def TrustDestination(self, request: pb.TrustDestinationRequest, context: Context) -> pb.Equipment:
        fields = Fields()
        fields.equipment(request.equipment_id)
        if not request.destination:
            fields.wrong("destination", "is required")
        fields.reason(request.reason, required=True)
        fields.done()
        await self._targets.trust(request.equipment_id, request.destination, cause(request.reason))
        return _equipment(await self._statuses.one(request.equipment_id))

    async def _set(self, equipment_id: str, reason: str, *, paused: bool) -> pb.Equipment:
        fields = Fields()
        fields.equipment(equipment_id)
        fields.reason(reason, required=True)
        fields.done()
        await self._pause.set(equipment_id, paused, cause(reason))
        return _equipment(await self._statuses.one(equipment_id))


def _equipment(status: EquipmentStatus) -> pb.Equipment:
    pause = status.record.pause
    message = pb.Equipment(
        id=status.settings.id,
        label=status.settings.label,
        paused=pause is not None,
        destinations=[_destination(d) for d in status.destinations],
        job_counts=[
            pb.JobCount(state=JOB_STATES.to_proto(state), count=count) for state, count in sorted(status.counts.items())
        ],
    )
    if pause is not None:
        message.paused_by, message.pause_reason = pause.actor, pause.reason
        message.paused_time.CopyFrom(_stamp(pause.since))
    return message


def _destination(status: DestinationStatus) -> pb.DestinationStatus:
    message = pb.DestinationStatus(
        name=status.name,
        transport=status.kind,
        required=status.required,
        reachable=not status.problem,
        problem=status.problem,
        checked_time=_stamp(status.checked),
        free_bytes=status.free_bytes,
    )
    target = status.target
    if status.traits is not None:
        message.probe.CopyFrom(probe_message(status.traits, status.tools))
    elif target.probe is not None:
        message.probe.CopyFrom(target.probe)
    if target.probed is not None:
        message.probe_time.CopyFrom(_stamp(target.probed))
    message.tools.extend(tool_messages(status.tools))
    message.suspected = target.is_suspected
    message.doubted_files.extend(target.doubted[-_MOST_DOUBTED:])
    return message


def _stamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def publish(servicer: EquipmentServicer) -> PublishedService:
    return PublishedService(
        full_name="labferry.sync.v1.EquipmentService",
        servicer=servicer,
        add_to_server=equipment_service_pb2_grpc.add_EquipmentServiceServicer_to_server,
        roles={
            "ListEquipment": READERS,
            "GetEquipment": READERS,
            "PauseEquipment": OPERATORS,
            "ResumeEquipment": OPERATORS,
            "TrustDestination": OPERATORS,
        },
    )
