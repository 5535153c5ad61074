"""Free space where the data directory is: below `min_free_mb` MT are refused before the operator accepts them."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog
import trio

MIB: Final = 1024 * 1024

CHECK_S: Final = 1.0
# Room comes back when a tenth more than the minimum is free, so that the border does not flap.
ROOM_AGAIN: Final = 1.1

_log = structlog.get_logger()


class Space:
    """`low` as of the last `check`, which the first is made at once."""

    def __init__(self, path: Path, min_free_mb: int, free: Callable[[Path], int]) -> None:
        """`free` says how many bytes are free there."""
        self.low = False
        self._path = path
        self._minimum = min_free_mb * MIB
        self._free = free
        self.check()

    async def watch(self) -> None:
        while True:
            await trio.sleep(CHECK_S)
            self.check()

    def check(self) -> None:
        try:
            free = self._free(self._path)
        except OSError as error:
            _log.error("store.space_unknown", why=error.strerror)
            return
        minimum = self._minimum
        if not self.low and free < minimum:
            self.low = True
            _log.error("store.space_low", free_mb=free // MIB, min_free_mb=minimum // MIB)
        elif self.low and free >= minimum * ROOM_AGAIN:
            self.low = False
            _log.warning("store.space_enough", free_mb=free // MIB, min_free_mb=minimum // MIB)
