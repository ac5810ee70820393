"""labferry: the operators' command line. Everything it does goes over gRPC, as any other caller."""

from __future__ import annotations

import typer

from cli.commands import (
    doctor,
    equipment,
    identity,
    identity_certificates,
    job,
    log,
    override,
    problems,
    project,
    receipt,
    run,
    run_clean,
    run_evidence,
    run_export,
    run_list,
    secret,
    secret_lease,
    staging,
    up,
    why,
)
from libs.service_kit.version import LABFERRY_VERSION

_EPILOG = """Exit status: 0 done · 1 the answer is no (blocked, not verified, not intact) · 2 wrong usage ·
3 the configuration or token file can't be used · 4 the output can't be written · 64 + the gRPC status for a refused
call · 130 interrupted."""

app = typer.Typer(
    name="labferry",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    epilog=_EPILOG,
    help="Carries acquisition runs to the lab's storage and proves that every byte arrived.",
)
run.app.command("clean", epilog="Example: labferry run clean CONFOCAL_01/… --dry-run")(run_clean.clean)
run.app.command("evidence", epilog="Example: labferry run evidence CONFOCAL_01/… -o json")(run_evidence.evidence)
run.app.command("export", epilog="Example: labferry run export CONFOCAL_01/… --to /mnt/usb/bag")(run_export.export)
run.app.command("list", epilog="Example: labferry run list --equipment CONFOCAL_01 --status synced -o json")(
    run_list.list_runs
)
app.add_typer(run.app, name="run")
app.add_typer(staging.app, name="staging")
app.add_typer(receipt.app, name="receipt")
app.add_typer(job.app, name="job")
app.add_typer(equipment.app, name="equipment")
app.add_typer(override.app, name="override")
app.add_typer(project.app, name="project")
secret.app.command("leases", epilog="Example: labferry secret leases")(secret_lease.leases)
secret.app.command(
    "revoke-lease", epilog='Example: labferry secret revoke-lease 5f2c… --reason "the storage was stolen"'
)(secret_lease.revoke_lease)
app.add_typer(secret.app, name="secret")
identity.app.command("ca", epilog="Example: labferry identity ca /etc/labferry/ca")(identity_certificates.authority)
identity.app.command(
    "certificate",
    epilog="Example: labferry identity certificate --ca /etc/labferry/ca --san sync.lab --to /etc/labferry/sync",
)(identity_certificates.certificate)
app.add_typer(identity.app, name="identity")
app.add_typer(log.app, name="log")
app.command("problems", epilog="Example: labferry problems --equipment CONFOCAL_01 --tier hard")(problems.problems)
app.command("why", epilog='Example: labferry why "CONFOCAL_01/Pilot/Runs/Run_2026-04-17T14-32"')(why.why)
app.command("events", epilog="Example: labferry events --follow --stream job- -o json")(log.events)
app.command("doctor", epilog="Example: labferry doctor -o json")(doctor.doctor)
app.command("up", epilog="Example: labferry up --config labferry.yaml")(up.up)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(LABFERRY_VERSION)
