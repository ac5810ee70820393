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

if TYPE_CHECKING:
    from grpc.aio import ServicerContext

    Context = ServicerContext[Any, Any]


class EquipmentServicer(equipment_service_pb2_grpc.EquipmentServiceServicer):
    """Shows equipment, and holds it."""

    def __init__(self, statuses: EquipmentStatuses, pause: PauseEquipment) -> None:
        self._statuses = statuses
        self._pause = pause

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
    if status.traits is not None:
        message.probe.case_sensitive = status.traits.case_sensitive
        message.probe.max_name_bytes = status.traits.max_name_bytes
        message.probe.keeps_unicode_forms = status.traits.keeps_unicode_forms
        message.probe.keeps_any_bytes = status.traits.keeps_any_bytes
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
        },
    )
