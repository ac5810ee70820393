"""labferry receipt: get a proven run's signed receipt, and check one against a folder without any service."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from cli.failure import EXIT_NO, run_command
from cli.options import ConfigOption, OutputOption, RunArgument, TokenOption, connect
from cli.output import OutputFormat, console, note, print_json, visible
from labferry.sync.v1 import sync_service_pb2, sync_service_pb2_grpc
from libs.run_tree.receipt import ReceiptError, SignedReceipt, read_receipt
from libs.run_tree.receipt_check import check_run
from libs.service_kit.identity import ServiceName

app = typer.Typer(no_args_is_help=True, help="Signed receipts of proven runs: get one, check one.")


@app.command(
    epilog='Example: labferry receipt get "CONFOCAL_01/Cortex Q3 Pilot/Runs/Run_2026-04-17T14-32" > receipt.json'
)
def get(
    run: RunArgument,
    destination: Annotated[str, typer.Option(help="The first that has one by default.")] = "",
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """Print the receipt as it lies beside the data."""

    async def work() -> None:
        request = sync_service_pb2.GetReceiptRequest(run=run, destination=destination or None)
        async with connect(config, token_file).channel(ServiceName.SYNC_ENGINE) as channel:
            found = await sync_service_pb2_grpc.SyncServiceStub(channel).GetReceipt(request)
        typer.echo(found.content, nl=False)

    run_command(work())


@app.command(epilog="Example: labferry receipt verify receipt.json --run /mnt/nas/… --key checkpoint-….pub")
def verify(
    file: Annotated[Path, typer.Argument(help="The receipt.", show_default=False)],
    run: Annotated[Path, typer.Option(help="The run's folder, wherever it lies.", show_default=False)],
    key: Annotated[
        Path | None, typer.Option(help="The service's public key (PEM), from somewhere else than the receipt.")
    ] = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Check signature, manifest and every file; needs no service. Exit status 1 names what doesn't fit."""
    try:
        signed = read_receipt(file.read_bytes())
        _require_key(signed, key)
        check = check_run(signed.receipt, run)
        wrong, beside = [(m.what, m.problem) for m in check.wrong], check.beside
    except OSError as error:
        raise typer.BadParameter(f"{error.filename}: {error.strerror}") from error
    except ReceiptError as error:
        signed, wrong, beside = None, [(error.field, str(error).partition(": ")[2])], 0
    if output is OutputFormat.JSON:
        receipt = None if signed is None else msgspec.to_builtins(signed.receipt)
        problems = [{"what": what, "problem": problem} for what, problem in wrong]
        print_json({"valid": not wrong, "problems": problems, "beside": beside, "receipt": receipt})
    else:
        for what, problem in wrong:
            note(f"{visible(what)}: {problem}")
        if signed is not None and not wrong:
            _say_what_is_proven(signed, key, beside)
    if wrong:
        raise typer.Exit(EXIT_NO)


def _require_key(signed: SignedReceipt, key: Path | None) -> None:
    if key is None:
        return
    try:
        public = load_pem_public_key(key.read_bytes())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise typer.BadParameter(f"{key} holds no public key", param_hint="--key") from error
    if not isinstance(public, Ed25519PublicKey) or public.public_bytes_raw() != signed.public_key:
        raise ReceiptError("public_key", "is not the one that was given: somebody else signed it")


def _say_what_is_proven(signed: SignedReceipt, key: Path | None, beside: int) -> None:
    said = signed.receipt
    console.print(f"valid: {said.file_count} files of {said.byte_count} bytes of {visible(said.run)}", markup=False)
    for copy in said.copies:
        line = f"{copy.destination}: {copy.grade} by {copy.method}, {copy.verified_time}"
        console.print(f"  {visible(line)}", markup=False)
    if beside:
        note(f"{beside} files beside them: symlinks, or files that came later; this receipt says nothing of those")
    if key is None:
        fingerprint = hashlib.sha256(signed.public_key).hexdigest()[:16]
        note(f"signed with the key {fingerprint}; --key compares it with one that you trust")
