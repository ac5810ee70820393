"""A project's own folder is queued like a run: its files and its cache travel, without its runs (SPEC §1)."""

from __future__ import annotations

from pathlib import Path

import pytest

from labferry.sync.v1 import finding_pb2, job_pb2, problem_service_pb2, sync_service_pb2
from tests.integration.sync_engine.running_engine import (
    BLOCKED,
    EQUIPMENT,
    PROJECT,
    QUEUED,
    Engine,
    Site,
    creation_document,
    running_engine,
    sha256sum_agrees,
)
from tests.integration.sync_engine.test_cleanup import ALLOWED, clean, data_files, lacking
from tests.integration.sync_engine.test_far_transports import rsync_ssh
from tests.integration.transfer.far_servers import running_sshd

PROJECT_FOLDER = f"{EQUIPMENT}/{PROJECT}"


def make_project(site: Site) -> str:
    """A project with files and a folder of its own, beside two runs in both places where runs lie."""
    site.make_run({"a.tif": b"pixels"})
    site.make_run({"b.tif": b"more"}, leaf="Run_2026-04-18T09-00")
    folder = site.local(PROJECT_FOLDER)
    (folder / "Run_straight").mkdir()
    (folder / "Run_straight" / "c.tif").write_bytes(b"straight under the project")
    (folder / "docs" / "Runs").mkdir(parents=True)
    (folder / "docs" / "Runs" / "of an analysis.csv").write_bytes(b"1,2\n")
    (folder / "README.md").write_bytes(b"# Cortex")
    (folder / "Run_list.txt").write_bytes(b"a file, not a run")
    site.write_creation(PROJECT_FOLDER, creation_document(level="project"))
    (folder / "Runs" / ".exlab-wizard").mkdir()
    (folder / "Runs" / ".exlab-wizard" / "runs.json").write_text('{"schema_version": "1.0", "runs": []}')
    return PROJECT_FOLDER


OWN = {"README.md", "Run_list.txt", "docs/Runs/of an analysis.csv"}


async def verified(engine: Engine, run: str) -> sync_service_pb2.VerifyReport:
    request = sync_service_pb2.VerifyRunRequest(run=run, reason="audit")
    (report,) = [u.report async for u in engine.sync.VerifyRun(request) if u.HasField("report")]
    return report


async def its_files_travel_without_its_runs(site: Site) -> None:
    async with running_engine(site) as engine:
        project = make_project(site)
        job = await engine.bring(project)
        assert (job.run, job.state, job.file_count) == (project, job_pb2.JOB_STATE_VERIFIED, len(OWN))
        assert data_files(site.at_nas(project)) == OWN
        assert sha256sum_agrees(site.at_nas(project)) == len(OWN)
        await site.until_sync_status(project, "synced")
        # A run of the project arrives beside it, with the project's cache, and is nothing unexpected there.
        await engine.bring(f"{project}/Runs/Run_2026-04-17T14-32")
        report = await verified(engine, project)
        assert (report.passed, report.expected, list(report.unexpected)) == (True, len(OWN), [])
        assert (site.at_nas(project) / "Runs" / ".exlab-wizard" / "runs.json").exists()
        # What is added to the project's own files is brought; what is added to its runs is not its matter.
        site.make_run({"d.tif": b"new"}, leaf="Run_2026-04-19T09-00")
        assert (await engine.enqueue(project)).outcome == sync_service_pb2.ENQUEUE_OUTCOME_ALREADY_SYNCED
        (site.local(project) / "notes.txt").write_bytes(b"later")
        amended = await engine.bring(project)
        assert amended.amendment == 1
        assert (site.at_nas(project) / "notes.txt").read_bytes() == b"later"
        assert not (site.at_nas(project) / "Runs" / "Run_2026-04-19T09-00").exists()


async def test_a_projects_files_travel_without_its_runs(site: Site) -> None:
    await its_files_travel_without_its_runs(site)


async def test_a_project_far_away(tmp_path: Path, site: Site) -> None:
    with running_sshd(tmp_path / "sshd") as sshd:
        site.lab.settings["equipment"][0]["transport"] = rsync_ssh(site, sshd)
        await its_files_travel_without_its_runs(site)


async def test_the_gate_looks_at_its_own_files_alone(site: Site, engine: Engine) -> None:
    project = make_project(site)
    (site.local(project) / "Runs" / "Run_2026-04-17T14-32" / "{{ y }}.txt").write_bytes(b"a run's matter")
    assert (await engine.enqueue(project)).outcome == QUEUED
    (site.local(project) / "docs" / "{{ x }}.txt").write_bytes(b"left over")
    answer = await engine.enqueue(project)
    assert answer.outcome == BLOCKED
    (finding,) = answer.blocking_findings
    assert finding.offending_path == f"{project}/docs/{{{{ x }}}}.txt"
    queries = [
        problem_service_pb2.QueryProblemsRequest(run=project),
        problem_service_pb2.QueryProblemsRequest(project_path=project),
        problem_service_pb2.QueryProblemsRequest(equipment_id=EQUIPMENT),
    ]
    for query in queries:
        found = [f async for f in engine.problems.QueryProblems(query)]
        assert [f.run_path for f in found if f.offending_path == finding.offending_path] == [project]
    await engine.override(project, finding_pb2.RULE_LEFTOVER_JINJA_MARKER)
    assert (await engine.enqueue(project)).outcome != BLOCKED


@pytest.mark.parametrize("retain_cache", [True, False])
async def test_its_local_files_are_never_cleaned(site: Site, retain_cache: bool) -> None:
    site.lab.settings["nas_cleanup"] = {**ALLOWED, "retain_cache": retain_cache}
    async with running_engine(site) as engine:
        project = make_project(site)
        await engine.bring(project)
        assert (await verified(engine, project)).passed
        answer = await clean(engine, project)
        assert (answer.cleaned, "enabled" in lacking(answer)) == (False, True)
        assert "only runs are cleaned" in next(i.detail for i in answer.interlocks if i.name == "enabled")
        assert data_files(site.local(project)) >= OWN
