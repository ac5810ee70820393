"""What commands name when something is wrong: the right command, each path, and who is meant."""

from __future__ import annotations

import os

from labferry.sync.v1 import job_pb2
from tests.e2e.terminal import NO, Operator
from tests.integration.secrets.running_service import running
from tests.integration.sync_engine.running_engine import new_site, running_engine
from tests.integration.sync_engine.test_encrypted_rclone import PASSWORD, equip_encrypted


async def test_secrets_that_were_never_made_are_to_be_initialized_first() -> None:
    async with new_site() as site:
        equip_encrypted(site, PASSWORD)
        run = site.make_run()
        operator = Operator(site)
        async with running(site.lab, "secrets"), running_engine(site) as engine:
            job_id = (await engine.enqueue(run)).job.job_id
            await engine.until_waiting(job_id, job_pb2.WAIT_CONDITION_SECRETS_UNAVAILABLE)
            why = await operator("why", run)
            assert why.out.index("$ labferry secret initialize") < why.out.index(
                "$ labferry secret set nas:CONFOCAL_01"
            )
            assert "secret unseal" not in why.out
            doctor = {check["part"]: check for check in (await operator("doctor", "-o", "json")).json}
            assert "labferry secret initialize" in doctor["secrets"]["detail"]
            assert "unseal" not in doctor["secrets"]["detail"]
            assert (await operator("secret", "initialize", given="a long passphrase\n")).status == 0
            assert (await operator("secret", "seal")).status == 0
            sealed = {check["part"]: check for check in (await operator("doctor", "-o", "json")).json}
            assert sealed["secrets"]["detail"] == "sealed: labferry secret unseal"


async def test_symlinks_that_lead_out_are_named_whatever_they_are_called(operator: Operator) -> None:
    run = operator.site.make_run()
    for name in ("out", "the run", "sub/up"):
        os.symlink("/etc", operator.site.local(run) / name)
    await operator("run", "queue", run)
    assert (await operator("job", "watch", "--run", run)).status == NO
    for said in (await operator("why", run), await operator("problems", "--run", run)):
        assert "3 symlink(s) lead out of the run" in said.out
        assert "out, sub/up, the run" in said.out


async def test_it_is_no_pronoun() -> None:
    async with new_site() as site:
        site.equip()
        site.nas().rmdir()
        run = site.make_run()
        operator = Operator(site)
        async with running_engine(site) as engine:
            job_id = (await engine.enqueue(run)).job.job_id
            await engine.until_waiting(job_id, job_pb2.WAIT_CONDITION_DESTINATION_UNREACHABLE)
            assert "who can clear it: IT\n" in (await operator("why", run)).out
            assert "  IT  " in (await operator("job", "show", job_id)).out
            assert (await operator("why", run, "-o", "json")).json[0]["who_can_clear"] == "it"


async def test_the_way_that_is_told_to_use_a_token_works(operator: Operator) -> None:
    made = await operator("identity", "create", "asmith", "--role", "viewer")
    file = made.out.strip()
    (told,) = [line for line in made.err.splitlines() if "labferry" in line]
    command = told.split("labferry ", 1)[1].replace("COMMAND …", "job list").replace("FILE", file)
    assert (await operator(*command.split())).status == 0
