"""Times that storages are known to lose, for trying. SFTP counts unsigned seconds in 32 bits: it turns 1969 into 2105
and 2107 into 1971. FAT begins in 1980.
"""

from __future__ import annotations

from typing import Final

FAR_TIMES: Final = (-31_536_000, 4_323_283_200)
"""1969 and 2107, in seconds since 1970."""
EXACT_ENOUGH: Final = 86_400
"""Seconds by which a time may be off that isn't lost: steps, and offsets of time zones that a tool rounds."""
