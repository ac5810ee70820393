"""What every block of labferry.yaml has in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class WrongBelowError(ValueError):
    """What a block finds wrong between its keys; `key` leads from it to the one to change."""

    def __init__(self, key: tuple[str | int, ...], message: str) -> None:
        super().__init__(message)
        self.key = key


class SettingsBlock(BaseModel):
    """Unknown keys are mistakes; what was read stays as it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)
