"""Creation mode: the rules on a run that is about to be made; agrees with an audit of the same run on disk."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.run_tree.run_path import RunKind, RunPath
from services.sync_engine.validation.content_scan import ContentScan
from services.sync_engine.validation.creation_mode import Proposal, check_proposal
from services.sync_engine.validation.finding import Rule
from services.sync_engine.validation.walk import AuditRules, audit_run

SCAN = ContentScan()
PATH = "CONFOCAL_01/Cortex/Runs/Run_2026-04-17T14-32"


def test_a_sound_proposal_has_no_finding() -> None:
    proposal = Proposal(PATH, RunKind.EXPERIMENTAL, ["a.tif", "sub/b.csv"], {"README.md": "---\nlabel: x\n---\n"})
    assert check_proposal(proposal, SCAN) == []


def test_every_part_of_a_proposal_is_looked_at() -> None:
    proposal = Proposal(
        "CONFOCAL_01/Körper/Runs/TestRun_{{ x }}",
        RunKind.EXPERIMENTAL,
        ["<a>", "aux/b.txt"],
        {"README.md": "---\nlabel: {{ y }}\n", "raw.xml": "<Tag>", "data.bin": "{{ z }}"},
        ["irb", "operator"],
        {"core_fields": {"operator": "asmith"}},
    )
    found = {(f.rule, f.offending_path.rpartition("/")[2]) for f in check_proposal(proposal, SCAN)}
    assert found == {
        (Rule.UNSAFE_PROJECT_NAME, "Körper"),
        (Rule.LEFTOVER_JINJA_MARKER, "TestRun_{{ x }}"),
        (Rule.MODE_PREFIX_MISMATCH, "TestRun_{{ x }}"),
        (Rule.UNRESOLVED_PLACEHOLDER_TOKEN, "<a>"),
        (Rule.ILLEGAL_FILESYSTEM_CHARACTER, "<a>"),
        (Rule.RESERVED_FILESYSTEM_NAME, "aux"),
        (Rule.MALFORMED_YAML_FRONT_MATTER, "README.md"),
        (Rule.UNRESOLVED_PLACEHOLDER_TOKEN, "raw.xml"),
        (Rule.MISSING_REQUIRED_FIELD, "readme_fields.json"),
    }


@pytest.mark.parametrize("fields", [{"irb": "1"}, {"config_fields": {"irb": "1"}}])
def test_readme_fields_may_come_in_layers_or_flat(fields: dict[str, object]) -> None:
    assert check_proposal(Proposal(PATH, required_fields=["irb"], readme_fields=fields), SCAN) == []  # type: ignore[arg-type]


_NAME = st.text(st.sampled_from("ab<>{}%. :_x"), min_size=1, max_size=8).filter(lambda n: n not in (".", ".."))


@given(st.lists(st.tuples(_NAME, _NAME), max_size=6, unique_by=lambda pair: pair[0].casefold()))
def test_it_says_of_names_what_an_audit_of_the_made_run_says(names: list[tuple[str, str]]) -> None:
    files = [f"d{number} {folder}/{name}" for number, (folder, name) in enumerate(names)]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in [*files, ".exlab-wizard/creation.json"]:
            place = root / PATH / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
        (root / PATH / ".exlab-wizard" / "creation.json").write_bytes(
            json.dumps({"schema_version": "1.8", "level": "run", "lims_project": {}}).encode()
        )
        made = audit_run(root, RunPath.parse(PATH), AuditRules(SCAN)).findings
    assert list(made) == check_proposal(Proposal(PATH, RunKind.EXPERIMENTAL, files), SCAN)
