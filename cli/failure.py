"""How commands fail: one clear error on standard error, and an exit status that tells programs what it was."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import grpc
import typer
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from cli.connection import NoConfigurationError, TokenFileError
from cli.output import note
from libs.service_kit.config import ConfigurationError
from libs.service_kit.identity_registry import IdentityError
from libs.service_kit.transport_security import TlsFilesError

EXIT_NO = 1
"""The call worked and the answer is no: blocked, not verified, not intact."""

EXIT_CONFIGURATION = 3
EXIT_GRPC = 64
"""Added to the gRPC status of a refused call."""

_INTERRUPTED = 130


def run_command(work: Coroutine[Any, Any, int | None]) -> None:
    """Runs a command. Its result is the exit status; a refused call ends with 64 + its gRPC status, as grpcurl does."""
    try:
        status = asyncio.run(work)
    except grpc.aio.AioRpcError as error:
        _explain(error)
        raise typer.Exit(EXIT_GRPC + error.code().value[0]) from None
    except (ConfigurationError, NoConfigurationError, TokenFileError, TlsFilesError) as error:
        note(str(error))
        raise typer.Exit(EXIT_CONFIGURATION) from None
    except KeyboardInterrupt:
        raise typer.Exit(_INTERRUPTED) from None
    if status:
        raise typer.Exit(status)


def run_local(work: Callable[[], None]) -> None:
    """Runs a command that works on files of this machine and calls nobody."""
    try:
        work()
    except (ConfigurationError, NoConfigurationError) as error:
        note(str(error))
        raise typer.Exit(EXIT_CONFIGURATION) from None
    except (IdentityError, OSError) as error:
        note(str(error))
        raise typer.Exit(EXIT_NO) from None


def _explain(error: grpc.aio.AioRpcError) -> None:
    status: Any = rpc_status.from_call(error)  # type: ignore[arg-type]
    note(f"{error.code().name}: {error.details()}")
    if status is None and error.code() is grpc.StatusCode.UNAVAILABLE:
        note("  nothing answers there; labferry up starts the services")
    for packed in status.details if status is not None else ():
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
            if packed.Is(kind.DESCRIPTOR):
                detail = kind()
                packed.Unpack(detail)
                _explain_detail(detail)


def _explain_detail(detail: Message) -> None:
    if isinstance(detail, error_details_pb2.ErrorInfo):
        metadata = ", ".join(f"{k}={v}" for k, v in sorted(detail.metadata.items()))
        note(f"  reason: {detail.reason} ({detail.domain})" + (f"  {metadata}" if metadata else ""))
    elif isinstance(detail, error_details_pb2.BadRequest):
        for violation in detail.field_violations:
            note(f"  {violation.field}: {violation.description}")
    elif isinstance(detail, error_details_pb2.RetryInfo):
        note(f"  try again in {detail.retry_delay.ToTimedelta().total_seconds():g} s")
