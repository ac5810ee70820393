from __future__ import annotations

from services.secrets.history import HistoriesSoFar, SecretHistory
from services.secrets.names import KnownName, merge_names
from services.secrets.secret_id import SecretId


def test_log_and_file_are_merged_in_order() -> None:
    known = SecretHistory().with_version(2, "operator-1", None)
    histories = HistoriesSoFar()
    merged = merge_names("x", {"b": known}, ["c", "b", "a"], histories)
    assert [name.secret.username for name in merged] == ["a", "b", "c"]
    assert merged[0] == KnownName(SecretId("x", "a"), SecretHistory())
