"""The methods of labferry.sync.v1.SyncService about proven copies: translation between protobuf and the domain."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from labferry.sync.v1 import sync_service_pb2, sync_service_pb2_grpc
from services.sync_engine.cleanup.clean_run import CleanRun
from services.sync_engine.cleanup.messages import cleaned_message
from services.sync_engine.receipts.queries import Proof, ProofQueries
from services.sync_engine.requests import Fields, cause
from services.sync_engine.transfer.transport import EntryKind, bytes_unless_text

if TYPE_CHECKING:
    from grpc.aio import ServicerContext

    Context = ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class ProofParts:
    """What these methods call."""

    clean: CleanRun
    queries: ProofQueries


class ProofMethods(sync_service_pb2_grpc.SyncServiceServicer):
    """CleanRun, GetReceipt, ListEvidence, GetManifest."""

    def __init__(self, parts: ProofParts) -> None:
        self._proof = parts

    async def CleanRun(
        self, request: sync_service_pb2.CleanRunRequest, context: Context
    ) -> sync_service_pb2.CleanRunResponse:
        fields = Fields()
        fields.run(request.run)
        fields.reason(request.reason, required=not request.dry_run)
        fields.done()
        if request.dry_run:
            return cleaned_message(await self._proof.clean.look(request.run))
        return cleaned_message(await self._proof.clean.clean(request.run, cause(request.reason)))

    async def GetReceipt(
        self, request: sync_service_pb2.GetReceiptRequest, context: Context
    ) -> sync_service_pb2.Receipt:
        fields = Fields()
        fields.run(request.run)
        fields.done()
        destination = request.destination if request.HasField("destination") else None
        found = await self._proof.queries.receipt(request.run, destination)
        message = sync_service_pb2.Receipt(
            run=found.receipt.run,
            destination=found.receipt.destination,
            content=found.content,
            manifest_sha256=found.receipt.manifest_sha256,
        )
        message.issued_time.FromDatetime(datetime.fromisoformat(found.receipt.issued_time))
        return message

    async def ListEvidence(
        self, request: sync_service_pb2.ListEvidenceRequest, context: Context
    ) -> AsyncIterator[sync_service_pb2.Evidence]:
        fields = Fields()
        fields.run(request.run)
        fields.done()
        destination = request.destination if request.HasField("destination") else None
        async with aclosing(self._proof.queries.evidence(request.run, destination)) as proofs:
            async for proof in proofs:
                yield _evidence(proof)

    async def GetManifest(
        self, request: sync_service_pb2.GetManifestRequest, context: Context
    ) -> AsyncIterator[sync_service_pb2.ManifestPiece]:
        fields = Fields()
        fields.run(request.run)
        fields.done()
        destination = request.destination if request.HasField("destination") else None
        async with aclosing(self._proof.queries.manifest(request.run, destination)) as pieces:
            async for piece in pieces:
                yield sync_service_pb2.ManifestPiece(content=piece)


def _evidence(proof: Proof) -> sync_service_pb2.Evidence:
    file = proof.evidence
    message = sync_service_pb2.Evidence(
        path=file.path.decode(errors="replace"),
        path_bytes=bytes_unless_text(file.path),
        size=file.size,
        sha256=file.sha256,
        grade=file.grade.value,
        method=proof.method,
        host=proof.host,
        destination=proof.destination,
        note=proof.note,
        symlink=file.kind is EntryKind.SYMLINK,
    )
    message.time.FromDatetime(proof.time)
    return message
