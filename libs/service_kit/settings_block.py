"""What every block of labferry.yaml has in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class SettingsBlock(BaseModel):
    """Unknown keys are mistakes; what was read stays as it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)
