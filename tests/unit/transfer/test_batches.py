"""How a run is cut into batches."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.sync_engine.transfer.copy_pipeline import batches
from services.sync_engine.transfer.file_copy import LARGE_BYTES
from services.sync_engine.transfer.transport import EntryKind, SourceEntry


@given(st.lists(st.sampled_from([0, 1, 20_000, 1 << 20, LARGE_BYTES - 1, LARGE_BYTES, 1 << 40]), max_size=700))
def test_every_entry_once_within_bounds(sizes: list[int]) -> None:
    entries = [SourceEntry(b"%d" % n, EntryKind.FILE, size, 0, 0, 0) for n, size in enumerate(sizes)]
    cut = list(batches(entries))
    assert sorted((entry for batch in cut for entry in batch), key=lambda entry: int(entry.path)) == entries
    for batch in cut:
        assert 1 <= len(batch) <= 256
        assert len(batch) == 1 or sum(entry.size for entry in batch) <= 64 << 20
        assert len(batch) == 1 or all(entry.size < LARGE_BYTES for entry in batch)
