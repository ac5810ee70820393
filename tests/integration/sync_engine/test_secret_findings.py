"""A secret that was not replaced in time is a problem. The engine knows its date, and nothing else of it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from google.protobuf import empty_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from labferry.secrets.v1 import secrets_service_pb2 as pb
from labferry.sync.v1 import finding_pb2, problem_service_pb2
from tests.integration.secrets.running_service import running
from tests.integration.sync_engine.running_engine import EQUIPMENT, PATIENCE, Engine, Site, running_engine

RULE = finding_pb2.RULE_SECRET_ROTATION_OVERDUE
EVERYTHING = {"all": empty_pb2.Empty()}


async def overdue(engine: Engine, **scope: object) -> list[tuple[str, str | None]]:
    query = problem_service_pb2.QueryProblemsRequest(**scope)  # type: ignore[arg-type]
    found = [f async for f in engine.problems.QueryProblems(query)]
    found = [f for f in found if f.rule == RULE]
    assert all(f.tier == finding_pb2.TIER_SOFT and not f.run_path for f in found)
    return [(f.offending_path, f.matched_token) for f in found]


async def until_told(engine: Engine, wanted: set[str]) -> None:
    """Watches problems until exactly these secrets are overdue."""
    watch = engine.problems.WatchProblems(problem_service_pb2.WatchProblemsRequest(**EVERYTHING))
    present: set[str] = set()
    try:
        async with asyncio.timeout(PATIENCE):
            async for update in watch:
                match update.WhichOneof("change"):
                    case "added" if update.added.rule == RULE:
                        present.add(update.added.matched_token)
                    case "removed" if update.removed.rule == RULE:
                        present.discard(update.removed.matched_token)
                if present == wanted:
                    return
    except TimeoutError:
        raise AssertionError(f"waited in vain for {wanted}; told of {present}") from None
    finally:
        watch.cancel()


async def test_overdue_secrets_are_problems_until_they_are_replaced(site: Site) -> None:
    site.equip("SCOPE_02")
    run = site.make_run()
    site.lab.write_passphrase()
    site.lab.settings["secrets"]["passphrase_file"] = str(site.lab.passphrase_file)
    past, future = Timestamp(), Timestamp()
    past.FromDatetime(datetime(2025, 1, 31, tzinfo=UTC))
    future.FromDatetime(datetime(2199, 1, 31, tzinfo=UTC))
    async with running_engine(site) as engine:
        # The secrets service may come later than the engine, and go: nobody who asks for problems waits for it.
        assert await overdue(engine, **EVERYTHING) == []
        async with running(site.lab, "secrets") as service:
            operator = await service.secrets()
            for username, rotate_by in {f"nas:{EQUIPMENT}": past, "lims": past, "nas:SCOPE_02": future}.items():
                await operator.SetSecret(pb.SetSecretRequest(username=username, value="v", rotate_by=rotate_by))
            await until_told(engine, {f"nas:{EQUIPMENT}", "lims"})
        assert await overdue(engine, **EVERYTHING) == [("", "lims"), (EQUIPMENT, f"nas:{EQUIPMENT}")]
        assert await overdue(engine, equipment_id=EQUIPMENT) == [(EQUIPMENT, f"nas:{EQUIPMENT}")]
        assert await overdue(engine, equipment_id="SCOPE_02") == []
        assert await overdue(engine, run=run) == []
        async with running(site.lab, "secrets") as service:
            operator = await service.secrets()
            await operator.SetSecret(pb.SetSecretRequest(username=f"nas:{EQUIPMENT}", value="w", rotate_by=future))
            await until_told(engine, {"lims"})
            assert not [e for e in await service.events() if e.type == "secrets.secret.read.v1"]
