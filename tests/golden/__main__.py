"""`python -m tests.golden`: writes the golden log of each scenario that has none yet. Those that are there stay."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from tests.golden.golden_log import write_missing


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        for folder in asyncio.run(write_missing(Path(scratch))):
            print(f"{folder.parent.name}/{folder.name}")  # noqa: T201


if __name__ == "__main__":
    main()
