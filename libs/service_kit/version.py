"""The version of Labferry that is installed here."""

from __future__ import annotations

from importlib.metadata import version

LABFERRY_VERSION = version("labferry")
