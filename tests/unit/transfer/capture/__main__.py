"""`python -m tests.unit.transfer.capture [NAME…]`: writes anew what the tools say, all of it or the captures named.

Needs to be root (it mounts, and leaves root's rights), strace, sshd, smbd, and the tools in the versions whose words
are wanted.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from tests.unit.transfer.capture.all_scenes import SCENES
from tests.unit.transfer.capture.scene import made_plain

CAPTURED = Path(__file__).parents[1] / "captured"


def main(names: list[str]) -> None:
    for name in names or SCENES:
        folder = Path(tempfile.mkdtemp(prefix="capture-"))
        folder.chmod(0o755)
        try:
            said = SCENES[name](folder)
            for old in CAPTURED.glob(f"{name}.*.txt"):
                old.unlink()
            words = made_plain(said.words, folder)
            (CAPTURED / f"{name}.{said.code}.txt").write_text(words, encoding="utf-8")
            sys.stdout.write(f"{name}: {said.code}: {words[-200:].strip()}\n")
        finally:
            shutil.rmtree(folder)


main(sys.argv[1:])
