"""Which overrides hold at a moment, against a plain model of SPEC §2."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.run_tree.overrides import OverrideEntry, active_overrides

NOW = datetime(2026, 4, 17, 12, 0, 0, tzinfo=UTC)


def entry(**fields: Any) -> OverrideEntry:
    return OverrideEntry({"operator": "ada", "reason": "known", "recorded_at": "2026-04-01T00:00:00Z", **fields})


def override(override_id: str = "a", **fields: Any) -> OverrideEntry:
    return entry(id=override_id, problem_class="leftover_jinja_marker", revoked=False, **fields)


def tombstone(revokes: str, own_id: str = "t") -> OverrideEntry:
    return entry(id=own_id, revokes=revokes, revoked=True)


def test_an_override_holds() -> None:
    active = active_overrides([override()], NOW)
    assert active.ids == {"a"}
    assert active.classes == {"leftover_jinja_marker"}
    assert active.earliest_expiry is None
    assert active.warnings == ()


def test_absent_revoked_means_false() -> None:
    assert active_overrides([entry(id="a", problem_class="c")], NOW).classes == {"c"}


@pytest.mark.parametrize("order", [1, -1])
def test_a_tombstone_revokes_wherever_it_stands(order: int) -> None:
    assert active_overrides([override(), tombstone("a")][::order], NOW).classes == frozenset()


def test_one_of_two_of_a_class_still_holds() -> None:
    active = active_overrides([override("a"), override("b"), tombstone("a")], NOW)
    assert active.ids == {"b"}
    assert active.classes == {"leftover_jinja_marker"}


def test_a_tombstone_at_an_unknown_id_has_no_effect_and_warns() -> None:
    active = active_overrides([override(), tombstone("z")], NOW)
    assert active.ids == {"a"}
    assert "z" in active.warnings[0]


def test_a_tombstone_at_a_tombstone_has_no_effect_and_warns() -> None:
    active = active_overrides([override(), tombstone("a", "t"), tombstone("t", "u")], NOW)
    assert active.ids == frozenset()
    assert "tombstone t" in active.warnings[0]


def test_revokes_on_an_override_has_no_effect() -> None:
    assert active_overrides([override("a"), override("b", revokes="a")], NOW).ids == {"a", "b"}


@pytest.mark.parametrize(
    ("expires_at", "holds"),
    [
        (None, True),
        ("2026-04-17T12:00:01Z", True),
        ("2026-04-17T12:00:00Z", False),
        ("2026-04-17T11:59:59Z", False),
        ("2026-04-17T14:00:01+02:00", True),
        ("2026-04-17T14:00:00+02:00", False),
        ("2026-04-17T12:00:00.5Z", True),
    ],
)
def test_expiry_is_exclusive(expires_at: str | None, holds: bool) -> None:
    active = active_overrides([override(expires_at=expires_at)], NOW)
    assert bool(active.ids) is holds
    assert active.warnings == ()


@pytest.mark.parametrize(
    "expires_at", ["", "soon", "2027-01-01T00:00:00", "2027-01-01", 1893456000, True, [], "2027-13-01T00:00:00Z"]
)
def test_a_malformed_or_zoneless_expiry_counts_as_expired(expires_at: object) -> None:
    active = active_overrides([override(expires_at=expires_at)], NOW)
    assert active.ids == frozenset()
    assert "malformed" in active.warnings[0]


def test_a_malformed_expiry_on_a_revoked_override_warns_nobody() -> None:
    assert active_overrides([override(expires_at=""), tombstone("a")], NOW).warnings == ()


def test_the_earliest_expiry_is_of_those_that_hold() -> None:
    entries = [
        override("a", expires_at="2026-04-17T13:00:00Z"),
        override("b", expires_at="2026-04-17T11:00:00Z"),
        override("c", expires_at="2026-04-17T12:30:00Z"),
        tombstone("c"),
    ]
    assert active_overrides(entries, NOW).earliest_expiry == datetime(2026, 4, 17, 13, tzinfo=UTC)


def test_an_entry_without_id_holds_by_its_class() -> None:
    active = active_overrides([entry(problem_class="c"), entry(id="", problem_class="d")], NOW)
    assert active.classes == {"c", "d"}
    assert active.ids == frozenset()


def test_new_entries_have_the_fields_in_order_and_need_a_reason() -> None:
    made = OverrideEntry.permission(
        override_id="i", problem_class="c", operator="ada", recorded_at=NOW, reason="r", expires_at=None
    )
    assert list(made.raw) == ["id", "problem_class", "operator", "recorded_at", "reason", "revoked", "expires_at"]
    assert made.raw["recorded_at"] == "2026-04-17T12:00:00Z"
    grave = OverrideEntry.tombstone(tombstone_id="t", revokes="i", operator="ada", recorded_at=NOW, reason="r")
    assert list(grave.raw) == ["id", "revokes", "operator", "recorded_at", "reason", "revoked"]
    assert active_overrides([made, grave], NOW).ids == frozenset()
    with pytest.raises(ValueError, match="required"):
        OverrideEntry.tombstone(tombstone_id="t", revokes="i", operator="ada", recorded_at=NOW, reason="  ")
    with pytest.raises(ValueError, match="required"):
        OverrideEntry.permission(
            override_id="i", problem_class="c", operator="", recorded_at=NOW, reason="r", expires_at=None
        )


_ids = st.sampled_from(["a", "b", "c", "d"])
_times = st.one_of(
    st.none(),
    st.integers(-5, 5).map(lambda offset: (NOW + timedelta(seconds=offset)).strftime("%Y-%m-%dT%H:%M:%SZ")),
    st.sampled_from(["", "2030-01-01T00:00:00", "x"]),
)
_entries = st.lists(
    st.one_of(
        st.builds(
            lambda i, c, e: {"id": i, "problem_class": c, "revoked": False, "expires_at": e},
            _ids,
            st.sampled_from(["p", "q"]),
            _times,
        ),
        st.builds(lambda i, c: {"id": i, "problem_class": c}, _ids, st.sampled_from(["p", "q"])),
        st.builds(lambda i, r: {"id": i, "revokes": r, "revoked": True}, _ids, _ids),
    ),
    max_size=8,
)


def _model(raws: list[dict[str, Any]], now: datetime) -> set[str]:
    """SPEC §2, read aloud."""
    holding = set()
    for raw in raws:
        if raw.get("revoked", False):
            continue
        if any(other.get("revoked", False) and other["revokes"] == raw["id"] for other in raws):
            continue
        expires = raw.get("expires_at")
        if expires is not None:
            if not expires.endswith("Z"):
                continue
            if not datetime.fromisoformat(expires) > now:
                continue
        holding.add(raw["problem_class"])
    return holding


@given(_entries, st.integers(-6, 6))
def test_the_same_as_a_plain_model(raws: list[dict[str, Any]], offset: int) -> None:
    now = NOW + timedelta(seconds=offset)
    assert active_overrides([OverrideEntry(raw) for raw in raws], now).classes == _model(raws, now)
