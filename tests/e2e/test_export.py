"""labferry run export: a bag that the library of its inventors finds valid, with metadata from the event log."""

from __future__ import annotations

import json
from pathlib import Path

import bagit
import pytest

from tests.e2e.terminal import NO, NOT_FOUND, Operator


async def test_a_bag_with_metadata(operator: Operator, tmp_path: Path) -> None:
    files: dict[str | bytes, bytes] = {"a.tif": b"pixels", "sub/größe 2.csv": b"1,2\n", "sub/empty": b""}
    run = operator.site.make_run(files)
    to = tmp_path / "bag"
    assert (await operator("run", "export", run, "--to", str(to))).status == NOT_FOUND
    await operator("run", "queue", run)
    assert (await operator("job", "watch", "--run", run)).status == 0
    (operator.site.local(run) / "a.tif").unlink()
    told = await operator("run", "export", run, "--destination", "default", "--to", str(to))
    assert (told.status, told.err) == (0, "")
    assert "3 files" in told.out
    bag = bagit.Bag(str(to))
    bag.validate()
    assert bag.info["External-Identifier"] == run
    assert set(bag.entries) >= {"data/a.tif", "data/sub/größe 2.csv", "data/sub/empty"}
    for name, content in files.items():
        assert (to / "data" / str(name)).read_bytes() == content
    crate = {one["@id"]: one for one in json.loads((to / "data/ro-crate-metadata.json").read_text("utf-8"))["@graph"]}
    assert crate["ro-crate-metadata.json"]["about"] == {"@id": "./"}
    root = crate["./"]
    assert root["identifier"] == run
    assert [crate[part["@id"]]["name"] for part in root["hasPart"]] == sorted(map(str, files))
    happened = [crate[action["@id"]]["name"] for action in root["mentions"]]
    assert "sync.job.verified.v1" in happened
    assert "sync.job.sealed.v1" in happened
    assert {one["agent"]["@id"] for one in crate.values() if one["@type"] == "Action"} <= set(crate)
    again = await operator("run", "export", run, "--to", str(to))
    assert (again.status, "exists; it is not replaced" in again.err) == (NO, True)
    (operator.site.at_nas(run) / "a.tif").write_bytes(b"PIXELS")
    rotten = await operator("run", "export", run, "--to", str(tmp_path / "other"))
    assert rotten.status == NO
    assert "a.tif: nowhere with the content that was verified" in rotten.err
    assert not list(tmp_path.glob("other*"))
    (to / "data/a.tif").write_bytes(b"PIXELS")
    with pytest.raises(bagit.BagValidationError):
        bag.validate()
