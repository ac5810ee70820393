"""labferry equipment: list, show, pause, resume."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Annotated

import typer
from rich.text import Text

from cli.failure import run_command
from cli.json_form import short_name
from cli.options import ConfigOption, OutputOption, TokenOption, connect
from cli.output import OutputFormat, console, moment, print_message, print_messages, print_table, size, visible
from labferry.sync.v1 import equipment_service_pb2, equipment_service_pb2_grpc, job_pb2
from libs.service_kit.identity import ServiceName

app = typer.Typer(no_args_is_help=True, help="Equipment: list, show, pause, resume.")

_STATE = job_pb2.JobState.DESCRIPTOR
_MOST_FILES = 10
EquipmentArgument = Annotated[str, typer.Argument(help="The equipment's id.", show_default=False)]
ReasonOption = Annotated[str, typer.Option(help="Why; kept in the log.", show_default=False)]


@app.command("list", epilog="Example: labferry equipment list -o json")
def list_equipment(
    output: OutputOption = OutputFormat.TABLE, config: ConfigOption = None, token_file: TokenOption = None
) -> None:
    """List the equipment; every destination is asked whether it answers."""

    async def work() -> None:
        async with connect(config, token_file).channel(ServiceName.SYNC_ENGINE) as channel:
            stub = equipment_service_pb2_grpc.EquipmentServiceStub(channel)
            answer = await stub.ListEquipment(equipment_service_pb2.ListEquipmentRequest())
        if output is OutputFormat.JSON:
            print_messages(answer.equipment)
        else:
            _print_rows(answer.equipment)

    run_command(work())


@app.command(epilog="Example: labferry equipment show CONFOCAL_01")
def show(
    equipment_id: EquipmentArgument,
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """Show an equipment with its destinations, as they answer now."""

    async def work() -> None:
        async with connect(config, token_file).channel(ServiceName.SYNC_ENGINE) as channel:
            stub = equipment_service_pb2_grpc.EquipmentServiceStub(channel)
            request = equipment_service_pb2.GetEquipmentRequest(equipment_id=equipment_id)
            equipment = await stub.GetEquipment(request)
        _print_one(equipment, output)

    run_command(work())


@app.command(epilog='Example: labferry equipment pause CONFOCAL_01 --reason "NAS maintenance"')
def pause(
    equipment_id: EquipmentArgument,
    reason: ReasonOption,
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """Hold every job of an equipment, also those queued later and after a restart."""

    async def work() -> None:
        request = equipment_service_pb2.PauseEquipmentRequest(equipment_id=equipment_id, reason=reason)
        async with connect(config, token_file).channel(ServiceName.SYNC_ENGINE) as channel:
            equipment = await equipment_service_pb2_grpc.EquipmentServiceStub(channel).PauseEquipment(request)
        _print_one(equipment, output)

    run_command(work())


@app.command(epilog='Example: labferry equipment resume CONFOCAL_01 --reason "the NAS is back"')
def resume(
    equipment_id: EquipmentArgument,
    reason: ReasonOption,
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """Let the jobs of an equipment go on."""

    async def work() -> None:
        request = equipment_service_pb2.ResumeEquipmentRequest(equipment_id=equipment_id, reason=reason)
        async with connect(config, token_file).channel(ServiceName.SYNC_ENGINE) as channel:
            equipment = await equipment_service_pb2_grpc.EquipmentServiceStub(channel).ResumeEquipment(request)
        _print_one(equipment, output)

    run_command(work())


@app.command(epilog='Example: labferry equipment trust CONFOCAL_01 nas --reason "a cable was replaced"')
def trust(
    equipment_id: EquipmentArgument,
    destination: Annotated[str, typer.Argument(help="Name of the destination.", show_default=False)],
    reason: ReasonOption,
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """Trust a destination again at which files were read back wrong twice; its jobs go on."""

    async def work() -> None:
        request = equipment_service_pb2.TrustDestinationRequest(
            equipment_id=equipment_id, destination=destination, reason=reason
        )
        async with connect(config, token_file).channel(ServiceName.SYNC_ENGINE) as channel:
            equipment = await equipment_service_pb2_grpc.EquipmentServiceStub(channel).TrustDestination(request)
        _print_one(equipment, output)

    run_command(work())


def _print_one(equipment: equipment_service_pb2.Equipment, output: OutputFormat) -> None:
    if output is OutputFormat.JSON:
        print_message(equipment)
        return
    _print_rows([equipment])
    console.print()
    rows = [
        (
            *(d.name, d.transport, "yes" if d.required else "no", "yes" if d.reachable else "NO"),
            size(d.free_bytes) if d.HasField("free_bytes") else "",
            moment(d.checked_time),
            "; ".join(filter(None, (d.problem, "under suspicion" if d.suspected else ""))),
        )
        for d in equipment.destinations
    ]
    print_table(("destination", "transport", "required", "answers", "free", "asked", "problem"), rows)
    for d in equipment.destinations:
        if d.suspected:
            _print_suspicion(equipment.id, d)


def _print_suspicion(equipment_id: str, status: equipment_service_pb2.DestinationStatus) -> None:
    files = status.doubted_files
    lines = [
        f"{status.name} is under suspicion: {len(files)} files were read back wrong twice",
        *(f"  {path}" for path in files[:_MOST_FILES]),
        *([f"  and {len(files) - _MOST_FILES} more"] if len(files) > _MOST_FILES else []),
        "  look at the storage, then trust it again:",
        f'  $ labferry equipment trust {equipment_id} {shlex.quote(status.name)} --reason "WHY"',
    ]
    console.print()
    for line in lines:
        console.print(Text(visible(line)), soft_wrap=True)


def _print_rows(equipment: Iterable[equipment_service_pb2.Equipment]) -> None:
    rows = [
        (
            e.id,
            e.label,
            f"by {e.paused_by} since {moment(e.paused_time)}: {e.pause_reason}" if e.paused else "",
            ", ".join(_shown(d) for d in e.destinations),
            ", ".join(f"{c.count} {short_name(_STATE, c.state)}" for c in e.job_counts),
        )
        for e in equipment
    ]
    print_table(("equipment", "label", "paused", "destinations", "jobs"), rows)


def _shown(status: equipment_service_pb2.DestinationStatus) -> str:
    said = [*(() if status.reachable else ("no answer",)), *(("under suspicion",) if status.suspected else ())]
    return f"{status.name} ({', '.join(said)})" if said else status.name
