"""What a check of the log, its checkpoints and its read models are, as protobuf messages."""

from __future__ import annotations

from collections.abc import Iterable

from labferry.events.v1 import event_log_service_pb2 as pb
from libs.event_log.checkpoint import SignedCheckpoint
from libs.event_log.checkpoint_place import CheckpointPlace
from libs.event_log.log_verification import LogVerdict
from libs.event_log.projection import ProjectionRunner

_MOST_PROBLEMS = 100


def verdict_message(verdict: LogVerdict) -> pb.VerifyLogResponse:
    response = pb.VerifyLogResponse(
        intact=verdict.first_bad is None,
        head_position=verdict.head_position,
        head_hash=verdict.head_hash.hex(),
        events_checked=verdict.events_checked,
        checkpoints_checked=verdict.checkpoints_checked,
        blobs_checked=verdict.blobs_checked,
    )
    if verdict.first_bad is not None:
        response.first_bad_position = verdict.first_bad.position
        response.reason = verdict.first_bad.reason
    for checkpoint in verdict.checkpoint_problems[:_MOST_PROBLEMS]:
        response.checkpoint_problems.add(
            file=str(checkpoint.file), number=checkpoint.number, position=checkpoint.position, reason=checkpoint.reason
        )
    for blob in verdict.blob_problems[:_MOST_PROBLEMS]:
        response.blob_problems.add(digest=blob.digest, position=blob.position, reason=blob.reason)
    for place in verdict.unread_places:
        response.unread_folders.add(file=str(place.file), problem=place.reason)
    return response


def projections_message(runner: ProjectionRunner) -> list[pb.ProjectionState]:
    """How far the read models are. The failure's own words stay in the service's log: they may hold anything."""
    failure, stop = runner.failure, None
    if failure is not None:
        stop = pb.ProjectionStop(
            projection=failure.projection, position=failure.position, event_type=failure.event_type
        )
    return [pb.ProjectionState(name=name, position=runner.position, stop=stop) for name in runner.names]


def checkpoints_message(
    checkpoints: Iterable[SignedCheckpoint], places: Iterable[CheckpointPlace]
) -> pb.ListCheckpointsResponse:
    response = pb.ListCheckpointsResponse()
    for signed in checkpoints:
        checkpoint = signed.checkpoint
        response.checkpoints.add(
            store_id=checkpoint.store_id,
            position=checkpoint.position,
            hash=checkpoint.hash.hex(),
            time=checkpoint.time,
            series=checkpoint.series,
            number=checkpoint.number,
            public_key=signed.public_key.hex(),
            signature=signed.signature.hex(),
        )
    for place in places:
        response.folders.add(file=str(place.file), last_number=place.delivered or 0, problem=place.problem)
    return response
