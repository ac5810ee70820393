"""What is made of rsync's lines, as rsync 3.5.0 wrote them."""

from __future__ import annotations

import os

from services.sync_engine.transfer.rsync_progress import RsyncProgress
from services.sync_engine.transfer.transport import EntryKind, SourceEntry

SIZES = {b"aa": 5_242_880, b"big": 314_572_800, b"zz": 5_242_880}
FIRST = (
    b"          32768   0%    0.00kB/s    0:00:00  \r        5242880   1%   47.32MB/s    0:00:00 (xfr#1, to-chk=2/4)\r"
    b"       95485952  29%   29.32MB/s    0:00:07  \r"
)
# The far end had 118816768 bytes of it.
SECOND = b"          10896   0%    0.00kB/s    0:00:00  \r      150332800  46%  143.36MB/s    0:00:01  \r"
THIRD = (
    b"          14408   0%    0.00kB/s    0:00:00  \r      291725432  89%  278.20MB/s    0:00:00  \r"
    b"      314572800  96%  254.01MB/s    0:00:01 (xfr#1, to-chk=1/4)\r"
    b"      319815680  98%  255.43MB/s    0:00:01 (xfr#2, to-chk=0/4)\r"
    b"      319815680  98%  255.43MB/s    0:00:01 (xfr#2, to-chk=0/4)\r\n"
)


class Heard:
    """The meter of three files; `steps` and signs of life that it gave."""

    def __init__(self) -> None:
        entries = [SourceEntry(path, EntryKind.FILE, size, 0, 0, 0) for path, size in SIZES.items()]
        self.steps: list[tuple[int, bytes]] = []
        self.signs = 0
        self.progress = RsyncProgress(entries, lambda nbytes, path: self.steps.append((nbytes, path)), self._alive)

    def _alive(self) -> None:
        self.signs += 1

    def run(self, whole: set[bytes], lines: bytes) -> None:
        """One run of rsync."""
        self.progress.begin(whole)
        read_end, write_end = os.pipe()
        with os.fdopen(read_end, "rb") as stream:
            with os.fdopen(write_end, "wb") as out:
                out.write(lines)
            self.progress.read(stream)

    @property
    def told(self) -> int:
        return sum(nbytes for nbytes, _ in self.steps)


def test_a_file_that_is_gone_on_with_is_counted_once() -> None:
    heard = Heard()
    heard.run(set(), FIRST)
    assert heard.steps == [(32768, b"aa"), (5_210_112, b"big"), (90_243_072, b"big")]
    assert heard.told == 95_485_952
    heard.run({b"aa"}, SECOND)
    # What came between the first run's last line and its end is heard of now.
    assert heard.steps[3:] == [(5_242_880 + 150_332_800 - 95_485_952, b"big")]
    heard.run({b"aa"}, THIRD)
    assert heard.told == sum(SIZES.values())
    assert heard.steps[-2:] == [(314_572_800 - 291_725_432, b"zz"), (5_242_880, b"zz")]


def test_what_is_counted_again_is_a_sign_of_life_and_no_step() -> None:
    heard = Heard()
    heard.run(set(), FIRST)
    heard.run(
        {b"aa"}, b"          10896   0%    0.00kB/s    0:00:00  \r       40332800  46%  143.36MB/s    0:00:01  \r"
    )
    assert (len(heard.steps), heard.signs) == (3, 5)
    assert heard.progress.counted == 40_332_800


def test_what_needn_t_be_sent_again_counts_at_the_end() -> None:
    heard = Heard()
    heard.run({b"aa", b"big", b"zz"}, b"              0 100%    0.00kB/s    0:00:00 (xfr#0, to-chk=0/0)\r\n")
    assert (heard.told, heard.signs) == (0, 0)
    heard.progress.finish()
    assert heard.told == sum(SIZES.values())
