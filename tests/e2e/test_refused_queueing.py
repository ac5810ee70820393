"""A run that can't be queued for what is no hard finding: `why` says what keeps it, and a way out that works."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from tests.e2e.terminal import NO, PRECONDITION, Operator, Said
from tests.integration.sync_engine.running_engine import PROJECT, creation_document, new_site, running_engine


def _newer() -> str:
    return json.dumps({**creation_document(), "schema_version": "2.0"})


def _unknown_status() -> str:
    return json.dumps({**creation_document(), "sync_status": "nearly"})


@pytest.mark.parametrize("content", ["{", _newer(), _unknown_status()], ids=["broken", "newer", "unknown_status"])
async def test_why_says_what_is_wrong_with_creation_json(content: str, operator: Operator) -> None:
    site = operator.site
    run = site.make_run()
    good = site.creation_path(run).read_text()
    site.creation_path(run).write_text(content)
    refused = await operator("run", "queue", run)
    assert refused.status == PRECONDITION
    said = await operator("why", run, "-o", "json")
    (answer,) = said.json
    assert (said.status, answer["condition"], answer["who_can_clear"]) == (NO, "not_queued", "operator")
    assert answer["detail"].removesuffix("; it can't be queued").split(": ", 1)[1] in refused.err
    assert ".exlab-wizard/creation.json" in answer["to_do"][0]
    site.creation_path(run).write_text(good)
    assert (await operator("equipment", "pause", "CONFOCAL_01", "--reason", "service")).status == 0
    assert (await operator(*shlex.split(answer["to_do"][1])[1:])).status == 0
    assert (await operator("job", "cancel", "--run", run, "--reason", "the wrong one")).status == 0
    site.creation_path(run).write_text(content)
    (cancelled,) = (await operator("why", run, "-o", "json")).json
    assert (cancelled["condition"], cancelled["to_do"]) == ("cancelled", answer["to_do"])


async def test_a_folder_without_creation_json_is_adopted_from_elsewhere(operator: Operator) -> None:
    site = operator.site
    run = site.make_run(creation={})
    refused = await operator("run", "queue", run)
    assert (refused.status, "out of Runs/" in refused.err) == (PRECONDITION, True)
    said = await operator("why", run, "-o", "json")
    (answer,) = said.json
    assert (said.status, answer["condition"]) == (NO, "not_queued")
    assert "orphan: " in answer["detail"] and "it can't be queued" in answer["detail"]
    move, adopt, queue = answer["to_do"]
    assert "out of Runs/" in move
    there = await _adopt(operator, adopt, site.local(run))
    assert there.status != 0
    assert "out of Runs/" in there.err
    elsewhere = site.local_root / "incoming"
    site.local(run).rename(elsewhere)
    adopted = await _adopt(operator, adopt, elsewhere)
    assert (adopted.status, adopted.out.strip()) == (0, run), adopted.err
    assert (await operator(*shlex.split(queue)[1:])).status == 0


async def _adopt(operator: Operator, command: str, folder: Path) -> Said:
    words = {"FOLDER": str(folder), "NAME": "asmith"}
    return await operator(*(words.get(word, word) for word in shlex.split(command)[1:]))


async def test_a_project_folder_without_creation_json_is_not_to_be_adopted(operator: Operator) -> None:
    operator.site.make_run()
    project = f"CONFOCAL_01/{PROJECT}"
    refused = await operator("run", "queue", project)
    assert (refused.status, "makes runs only" in refused.err) == (PRECONDITION, True)
    said = await operator("why", project, "-o", "json")
    (answer,) = said.json
    assert (said.status, "orphan: " in answer["detail"]) == (NO, True)
    assert not any("adopt" in step for step in answer["to_do"])


async def test_a_run_of_which_something_cannot_be_read_says_what() -> None:
    async with new_site() as site:
        site.equip()
        site.lab.settings["readme"] = {"defaults": [{"id": "irb", "label": "IRB", "required": True}]}
        run = site.make_run({"a.tif": b"1", ".exlab-wizard/readme_fields.json": b"{"})
        operator = Operator(site)
        async with running_engine(site):
            assert (await operator("run", "queue", run)).status == PRECONDITION
            said = await operator("why", run, "-o", "json")
            (answer,) = said.json
            assert (said.status, "readme_fields.json" in answer["detail"]) == (NO, True)
            (site.local(run) / ".exlab-wizard/readme_fields.json").write_text('{"irb": "1"}')
            assert (await operator(*shlex.split(answer["to_do"][1])[1:])).status == 0
