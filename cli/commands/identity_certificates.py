"""labferry identity ca, certificate: a small authority for labs that have none."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from cli.failure import run_local
from cli.output import console, note
from libs.service_kit.certificate_authority import AUTHORITY_CERTIFICATE, CERTIFICATE, KEY, issue, make_authority


def authority(
    folder: Annotated[Path, typer.Argument(help="Where the authority's certificate and key go.", show_default=False)],
    years: Annotated[float, typer.Option(min=0.01, help="How long it counts.")] = 10,
) -> None:
    """Make a certificate authority of the lab's own: ca.pem for everybody, ca.key for nobody else."""

    def work() -> None:
        make_authority(folder, timedelta(days=365 * years))
        console.print(str(folder / AUTHORITY_CERTIFICATE), markup=False)
        note("keep ca.key where only you can read it: whoever has it can be anybody")

    run_local(work)


def certificate(
    ca: Annotated[Path, typer.Option(help="Folder of the authority.", show_default=False)],
    san: Annotated[list[str], typer.Option(help="DNS name, IP address or URI; may be repeated.", show_default=False)],
    to: Annotated[Path, typer.Option(help="Folder that gets certificate.pem and key.pem.", show_default=False)],
    hours: Annotated[float, typer.Option(min=0.001, help="How long it counts.")] = 24,
) -> None:
    """Issue a short-lived certificate for a service or a person. A running service takes a renewed one up by itself."""

    def work() -> None:
        ends = issue(ca, san, timedelta(hours=hours), to)
        console.print(f"{to / CERTIFICATE}\n{to / KEY}", markup=False)
        note(f"it ends at {ends:%Y-%m-%dT%H:%M:%SZ}; renew it before")

    run_local(work)
