"""Where the `labferry` command begins."""

from __future__ import annotations

from libs.service_kit.first_imports import first_imports

with first_imports():
    from cli.main import main

__all__ = ["main"]
