"""QueryProblems and ValidateCreation: every rule through the API, each scope, in one order, repeatable."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.struct_pb2 import Struct

from labferry.sync.v1 import finding_pb2, job_pb2, problem_service_pb2, run_pb2
from tests.integration.sync_engine.running_engine import (
    PROJECT,
    QUEUED,
    Engine,
    Site,
    creation_document,
    running_engine,
)
from tests.integration.sync_engine.test_bad_input import refused

SHORT = {value: name.removeprefix("RULE_").lower() for name, value in finding_pb2.Rule.items()}


async def _problems(engine: Engine, **scope: Any) -> list[finding_pb2.Finding]:
    return [f async for f in engine.problems.QueryProblems(problem_service_pb2.QueryProblemsRequest(**scope))]


def _said(findings: list[finding_pb2.Finding]) -> list[tuple[str, str]]:
    return [(SHORT[f.rule], f.offending_path) for f in findings]


async def test_the_soft_rules_of_every_level(site: Site) -> None:
    site.lab.settings["readme"] = {"defaults": [{"id": "irb", "label": "IRB", "required": True}]}
    run = site.make_run({"README.md": b"---\nlabel: x\n", ".exlab-wizard/readme_fields.json": b"{}"})
    bare = site.make_run(leaf="Run_2026-04-17T15-00", creation={})
    (site.creation_path(bare).parent).mkdir()
    site.creation_path(bare).write_text("{", encoding="utf-8")
    old = site.make_run(leaf="Run_2026-04-17T16-00", creation=creation_document(lims_project=None))
    orphan = site.make_run(leaf="Run_2026-04-17T17-00", creation={})
    (site.local_root / "CONFOCAL_01" / "Körper").mkdir()
    async with running_engine(site) as engine:
        findings = await _problems(engine)
        assert _said(findings) == [
            ("malformed_yaml_front_matter", f"{run}/README.md"),
            ("missing_required_field", f"{run}/.exlab-wizard/readme_fields.json"),
            ("missing_required_field", old),
            ("orphan", f"CONFOCAL_01/{PROJECT}"),
            ("orphan", orphan),
            ("orphan", "CONFOCAL_01/Körper"),
            ("unreadable_creation_json", bare),
            ("unsafe_project_name", "CONFOCAL_01/Körper"),
        ]
        assert {f.tier for f in findings} == {finding_pb2.TIER_SOFT}
        assert [f.SerializeToString() for f in await _problems(engine)] == [f.SerializeToString() for f in findings]
        project = await _problems(engine, project_path="CONFOCAL_01/Körper")
        assert _said(project) == [("orphan", "CONFOCAL_01/Körper"), ("unsafe_project_name", "CONFOCAL_01/Körper")]
        assert _said(await _problems(engine, run=run)) == _said(findings)[:2]
        only = await _problems(engine, rules=[finding_pb2.RULE_ORPHAN], equipment_id="CONFOCAL_01")
        assert len(only) == 3
        assert (await engine.enqueue(run)).outcome == QUEUED, "soft findings block nothing"


async def test_jobs_that_failed_or_wait_for_somebody_are_findings(site: Site) -> None:
    run = site.make_run()
    aside = site.nas().with_name("away")
    site.nas().rename(aside)
    async with running_engine(site) as engine:
        job_id = (await engine.enqueue(run)).job.job_id
        await engine.until_waiting(job_id, job_pb2.WAIT_CONDITION_DESTINATION_UNREACHABLE)
        (waiting,) = await _problems(engine, run=run)
        assert waiting.rule == finding_pb2.RULE_NAS_SYNC_WAITING
        assert "destination_unreachable" in waiting.rule_detail
        aside.rename(site.nas())
        await engine.until_sealed(job_id)
        assert await _problems(engine, run=run) == []


async def test_a_proposed_run_is_checked_without_a_disk(site: Site) -> None:
    site.lab.settings["readme"] = {"defaults": [{"id": "irb", "label": "IRB", "required": True}]}
    fields = Struct()
    fields.update({"config_fields": {"irb": "P-1"}})
    sound = {
        "proposed_path": f"CONFOCAL_01/{PROJECT}/Runs/Run_2026-04-17T14-32",
        "run_kind": run_pb2.RUN_KIND_EXPERIMENTAL,
        "file_names": ["a.tif"],
        "file_contents": {"README.md": "---\nlabel: x\n---\n"},
        "readme_fields": fields,
    }
    async with running_engine(site) as engine:

        async def validate(**changes: Any) -> list[tuple[str, str]]:
            request = problem_service_pb2.ValidateCreationRequest(**{**sound, **changes})
            return _said((await engine.problems.ValidateCreation(request)).findings)

        assert await validate() == []
        path = sound["proposed_path"]
        assert await validate(run_kind=run_pb2.RUN_KIND_TEST) == [("mode_prefix_mismatch", path)]
        assert await validate(file_names=["{{ x }}.tif"]) == [("leftover_jinja_marker", f"{path}/{{{{ x }}}}.tif")]
        assert await validate(readme_fields=None) == [
            ("missing_required_field", f"{path}/.exlab-wizard/readme_fields.json")
        ]
        empty = engine.problems.ValidateCreation(problem_service_pb2.ValidateCreationRequest())
        assert (await refused(empty))[0] is grpc.StatusCode.INVALID_ARGUMENT
