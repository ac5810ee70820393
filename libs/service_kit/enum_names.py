"""Domain enums and their protobuf twins: the same members, with the prefix that protobuf style asks for."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Generic, TypeVar

Member = TypeVar("Member", bound=StrEnum)


class ProtoNames(Generic[Member]):
    """Maps `JobState.QUEUED` to `JOB_STATE_QUEUED` and back. Raises ValueError at import when a member has no twin."""

    def __init__(self, members: type[Member], wrapper: Any, prefix: str) -> None:
        self._to_proto: dict[Member, Any] = {m: wrapper.Value(f"{prefix}_{m.name}") for m in members}
        self._from_proto: dict[int, Member] = {v: m for m, v in self._to_proto.items()}
        unknown = set(wrapper.values()) - set(self._from_proto) - {0}
        if unknown:
            raise ValueError(f"{members.__name__} lacks {sorted(wrapper.Name(v) for v in unknown)}")

    def to_proto(self, member: Member) -> Any:
        return self._to_proto[member]

    def from_proto(self, value: int) -> Member:
        """KeyError for a value that isn't known here, zero among them."""
        return self._from_proto[value]

    def get(self, value: int) -> Member | None:
        """The member; None for zero or a value that isn't known here."""
        return self._from_proto.get(value)
