"""Since when a row that its owner counts up has been as it is. Pure."""

from typing import Final

_NEVER: Final = float("-inf")


class Watch:
    """Since when a row has been as it is."""

    def __init__(self) -> None:
        self._seen: tuple[int, int] | None = None
        self._since = _NEVER

    def still_for(self, epoch: int, beat: int, now: float) -> float:
        """For how many seconds the row has been seen like this, 0.0 when it has just changed."""
        if self._seen != (epoch, beat):
            self._seen, self._since = (epoch, beat), now
        return now - self._since
